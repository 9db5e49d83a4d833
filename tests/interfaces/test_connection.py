"""What a connection refuses or passes over, below the application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from interfaces.connection import HEAD_BYTES_MAX
from interfaces.server import Server, listen

pytestmark = pytest.mark.anyio

OFFER = (
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"UPGRADE: h2c\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
)
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    body = await request.body()
    await Response(request.method.encode() + b" " + body)(scope, receive, send)


@asynccontextmanager
async def connected() -> AsyncIterator[Line]:
    ready = asyncio.Event()
    with listen("127.0.0.1", 0, "--port") as listener:
        server = Server(echo, ready.set)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await ready.wait()
        reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        async with asyncio.timeout(30):
            yield reader, writer
        writer.close()
        server.should_exit = True
        await serving


async def heard(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, length = head.partition(b"content-length: ")
    return await reader.readexactly(int(length.partition(b"\r\n")[0]))


async def test_headers_without_an_end_are_cut_off() -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nX-Long: ")
        with suppress(ConnectionError):
            for _ in range(4):
                writer.write(b"x" * (HEAD_BYTES_MAX // 2))
                await writer.drain()
        assert await reader.readline() == b"HTTP/1.1 400 Bad Request\r\n"


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_an_offer_of_another_protocol_costs_no_body(in_pieces: bool) -> None:
    """As Java's HttpClient makes it with every first request."""
    body = b'{"a": "\r\nUpgrade: it"}'
    head = b"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (OFFER, len(body))
    async with connected() as (reader, writer):
        for _ in range(2):
            writer.write(head if in_pieces else head + body)
            if in_pieces:
                await asyncio.sleep(0.05)
                writer.write(body)
            assert await heard(reader) == b"POST " + body


async def test_nothing_is_read_as_another_request_after_an_offer_in_pieces() -> None:
    hidden = b"DELETE /all HTTP/1.1\r\nHost: x\r\n\r\n"
    before, after = OFFER.split(b"RADE")
    async with connected() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n" % len(hidden) + before)
        await asyncio.sleep(0.05)
        writer.write(b"RADE" + after + b"\r\n")
        writer.write(hidden)
        answers = await reader.read()
        assert b"DELETE" not in answers
        assert answers.count(b"HTTP/1.1 ") == 1
