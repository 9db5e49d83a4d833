"""What the server itself refuses, below the application."""

import asyncio
from contextlib import suppress

import pytest
from starlette.responses import Response

from interfaces.server import HEAD_BYTES_MAX, Server, listen

pytestmark = pytest.mark.anyio


async def test_headers_without_an_end_are_cut_off() -> None:
    ready = asyncio.Event()
    with listen("127.0.0.1", 0, "--port") as listener:
        server = Server(Response("well"), ready.set)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await ready.wait()
        port = listener.getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX-Long: ")
        with suppress(ConnectionError):
            for _ in range(4):
                writer.write(b"x" * (HEAD_BYTES_MAX // 2))
                await writer.drain()
        line = await asyncio.wait_for(reader.readline(), 10)
        assert line == b"HTTP/1.1 400 Bad Request\r\n"
        writer.close()
        server.should_exit = True
        await serving
