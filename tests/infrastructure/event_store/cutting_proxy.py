"""A PostgreSQL address that misbehaves on demand: a relay between two unix sockets."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

SOCKET = ".s.PGSQL.5432"
STATEMENT = b"\x00append\x00"
"""In the message that runs the committer's prepared statement."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Fault(Enum):
    """What happens to the next append that passes."""

    NONE = "none"
    REQUEST_LOST = "the connection ends before the server sees the append"
    ANSWER_LOST = "the connection ends when the server has answered"
    FROZEN = "nothing passes any more"


class CuttingProxy:
    """Relays connections; `fault` applies once, or to every append while it is `lasting`; `down`
    refuses all connections while it is set.

    `marker` is what a message must hold to meet the fault.
    """

    def __init__(self, upstream: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.fault = Fault.NONE
        self.marker = STATEMENT
        self.hits = 0
        self.lasting = False
        self.down = False
        self._upstream = upstream
        self._loop = loop
        self._connections: set[_Connection] = set()
        self._passable = asyncio.Event()
        self._passable.set()

    def hold(self) -> None:
        """Let nothing pass, and nobody notice, until `release`; from any thread."""
        self._loop.call_soon_threadsafe(self._passable.clear)

    def release(self) -> None:
        """Let pass what was held, late; from any thread."""
        self._loop.call_soon_threadsafe(self._passable.set)

    async def passable(self) -> None:
        """Return while nothing is held."""
        await self._passable.wait()

    def cut_all(self) -> None:
        """End every connection, as a stopped server does; from any thread."""

        async def cut() -> None:
            for connection in list(self._connections):
                connection.abort()

        asyncio.run_coroutine_threadsafe(cut(), self._loop).result()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until one side ends it, or a fault does."""
        if self.down:
            writer.transport.abort()
            return
        await self.passable()
        upstream = await asyncio.open_unix_connection(self._upstream)
        connection = _Connection(self, (reader, writer), upstream)
        self._connections.add(connection)
        await connection.relay()
        self._connections.discard(connection)


class _Connection:
    def __init__(self, proxy: CuttingProxy, client: Streams, server: Streams) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._fault = Fault.NONE

    def abort(self) -> None:
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def relay(self) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(self._up(), self._down())
        self.abort()

    async def _up(self) -> None:
        while chunk := await self._client[0].read(65536):
            if self._proxy.marker in chunk and self._proxy.fault is not Fault.NONE:
                self._proxy.hits += 1
                self._fault = self._proxy.fault
                if self._fault is Fault.FROZEN:
                    await asyncio.get_running_loop().create_future()
                if not self._proxy.lasting:
                    self._proxy.fault = Fault.NONE
                if self._fault is Fault.REQUEST_LOST:
                    break
            await self._proxy.passable()
            self._server[1].write(chunk)
            await self._server[1].drain()
        self.abort()

    async def _down(self) -> None:
        while chunk := await self._server[0].read(65536):
            if self._fault is Fault.ANSWER_LOST:
                break
            await self._proxy.passable()
            self._client[1].write(chunk)
            await self._client[1].drain()
        self.abort()


@contextmanager
def cutting_proxy(dsn: str, folder: Path, host: str = "") -> Iterator[tuple[CuttingProxy, str]]:
    """A running proxy to the server of `dsn` (on a unix socket), and the address through it: a
    unix socket in `folder`, or a free port of `host`.
    """
    parts = urlsplit(dsn)
    (upstream,) = parse_qs(parts.query)["host"]
    loop = asyncio.new_event_loop()
    proxy = CuttingProxy(Path(upstream) / SOCKET, loop)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    listening = (
        asyncio.start_server(proxy.serve, host, 0)
        if host
        else asyncio.start_unix_server(proxy.serve, folder / SOCKET)
    )
    server = asyncio.run_coroutine_threadsafe(listening, loop).result()
    through = parts._replace(query=f"host={quote(str(folder))}")
    if host:
        port = server.sockets[0].getsockname()[1]
        through = parts._replace(netloc=f"{parts.username}@{host}:{port}", query="")
    try:
        yield proxy, urlunsplit(through)
    finally:
        proxy.cut_all()
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
