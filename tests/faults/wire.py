"""A small HTTP client on kept-alive connections: cheap enough to load a server from its own
machine, and exact about when an answer began to be waited for and when it came.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

API = "/api/v1"


class Heard(NamedTuple):
    """An answer, or `status` 0 when none came. Times are those of `time.monotonic`."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    asked: float
    answered: float
    trouble: str = ""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.answered - self.asked

    def json(self) -> dict[str, Any]:
        """The body, an object."""
        found = json.loads(self.body)
        assert isinstance(found, dict), found
        return found


_Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Caller:
    """Asks one server after another request; connections are kept and used again.

    A connection that the server had closed before the request was sent is replaced once.
    """

    def __init__(self, address: str, *, actor: str = "tester", seconds_max: float = 30.0) -> None:
        self._address = ""
        self._actor = actor
        self._seconds_max = seconds_max
        self._idle: list[_Line] = []
        self.move(address)

    def move(self, address: str) -> None:
        """Ask there from now on; what is open to another address is let go."""
        if address == self._address:
            return
        while self._idle:
            self._idle.pop()[1].close()
        parts = urlsplit(address)
        self._address = address
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Heard:
        """A GET."""
        return await self.ask("GET", path, headers=headers)

    async def post(
        self, path: str, body: Any, key: str = "", headers: Mapping[str, str] | None = None
    ) -> Heard:
        """A POST of JSON, with an Idempotency-Key if there is one."""
        more = dict(headers or {}) | ({"Idempotency-Key": key} if key else {})
        return await self.ask("POST", path, json.dumps(body).encode(), more)

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Heard:
        """One request and its answer; silence and broken connections are told as status 0."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"X-Actor: {self._actor}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        request = "\r\n".join([*lines, "", ""]).encode() + body
        asked = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds_max):
                status, found, content = await self._exchange(request)
        except (OSError, EOFError, TimeoutError) as error:
            return Heard(0, {}, b"", asked, time.monotonic(), f"{type(error).__name__}: {error}")
        return Heard(status, found, content, asked, time.monotonic())

    async def close(self) -> None:
        """Let go of every connection."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _exchange(self, request: bytes) -> tuple[int, Mapping[str, str], bytes]:
        reader, writer = await self._line()
        try:
            writer.write(request)
            status, headers = await read_head(reader)
            content = await reader.readexactly(int(headers.get("content-length", "0")))
        except BaseException:
            writer.close()
            raise
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return status, headers, content

    async def _line(self) -> _Line:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self.host, self.port)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers (names in lower case) of the answer that comes."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in head[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    return int(head[0].split(" ", 2)[1]), headers


@asynccontextmanager
async def calling(address: str, **options: Any) -> AsyncIterator[Caller]:
    """A caller whose connections end with the block."""
    caller = Caller(address, **options)
    try:
        yield caller
    finally:
        with suppress(OSError):
            await caller.close()
