"""Real peers on loopback for the effects: an HTTP server under full control, an SMTP server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from application.steps import SecretUse, StepContext
from domain.json_values import Json, JsonObject


@dataclass(frozen=True)
class Received:
    """One request as it came over the wire; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Received], bytes]


@dataclass
class HttpServer:
    port: int = 0
    connections: int = 0
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of an answer; `content_type="text/plain"` becomes a header."""
    lines = [f"HTTP/1.1 {status} Reason{status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def json_answer(body: bytes, status: int = 200) -> bytes:
    return answer(status, body, content_type="application/json")


@asynccontextmanager
async def http_server(
    reply: Answer = lambda _: answer(), *, closes: bool = False
) -> AsyncIterator[HttpServer]:
    """Serves `reply` on a free port; an empty reply leaves the caller waiting.

    `closes` ends each connection after its first answer, which may be cut short then.
    """
    server, finished = HttpServer(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while True:
                request = await _read_request(reader)
                server.received.append(request)
                content = reply(request)
                if not content:
                    await finished.wait()
                writer.write(content)
                await writer.drain()
                if closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        finished.set()
        listener.close()
        await listener.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)


@dataclass
class SmtpServer:
    port: int = 0
    commands: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def smtp_server(recipient_reply: str = "250 ok") -> AsyncIterator[SmtpServer]:
    """A mail server which keeps what it gets; `recipient_reply` answers RCPT."""
    server = SmtpServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 local\r\n")
        try:
            while line := (await reader.readline()).decode().strip():
                server.commands.append(line)
                verb = line.split(" ")[0].upper()
                if verb == "DATA":
                    writer.write(b"354 go on\r\n")
                    server.messages.append(await reader.readuntil(b"\r\n.\r\n"))
                replies = {"RCPT": recipient_reply, "QUIT": "221 bye"}
                writer.write(f"{replies.get(verb, '250 ok')}\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()


def step_context(
    *secret_uses: SecretUse,
    path: str = "fetch",
    timeout_seconds: float = 20.0,
    workflow_input: JsonObject | None = None,
    progress: Callable[[Json], None] = lambda _: None,
) -> StepContext:
    execution_id = "0190b5a4-0000-7000-8000-000000000001"
    return StepContext(
        execution_id=execution_id,
        workspace_id="default",
        workflow_name="etl",
        workflow_version=3,
        attempt=1,
        path=path,
        step_id=path,
        try_no=2,
        delivery=1,
        epoch=7,
        idempotency_key=f"{execution_id}:1:{path}",
        shared_input=workflow_input or {},
        actor="alice",
        labels={},
        timeout_seconds=timeout_seconds,
        progress=progress,
        secret_uses=secret_uses,
    )
