"""The only way out: guarded against calls to the inside, bounded in bytes and time."""

import gzip
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from application.steps import StepFailure
from infrastructure.effects.outbound import Outbound, OutboundAnswer, OutboundRequest
from infrastructure.effects.outbound_addresses import OutboundAllow
from infrastructure.effects.outbound_urls import mistake_of_url, without_query
from tests.infrastructure.effects.local_servers import Received, answer, http_server
from tests.infrastructure.effects.outbound_corpus import PUBLIC_URLS_TEXT, inside_urls

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.1"


class Names:
    """A name server of our own: answers in turn, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@asynccontextmanager
async def outbound(
    allow: str = "", names: Names | None = None, body_bytes_max: int = 100_000
) -> AsyncIterator[Outbound]:
    allowed = OutboundAllow.parse(allow)
    made = (
        Outbound(allowed, resolve=names, body_bytes_max=body_bytes_max)
        if names
        else Outbound(allowed, body_bytes_max=body_bytes_max)
    )
    try:
        yield made
    finally:
        await made.aclose()


async def get(out: Outbound, url: str, **more: str) -> OutboundAnswer:
    return await out.send(OutboundRequest(method="GET", url=url, timeout_seconds=20, headers=more))


async def failure(out: Outbound, request: OutboundRequest) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        await out.send(request)
    return caught.value


async def test_no_url_reaches_the_inside() -> None:
    async with http_server() as canary, outbound() as out:
        urls = inside_urls(canary.port)
        assert len(urls) >= 150
        for url in urls:
            error = await failure(out, OutboundRequest(method="GET", url=url, timeout_seconds=5))
            assert error.code in ("outbound_refused", "bad_url", "network_error"), (url, error)
        assert canary.connections == 0


async def test_the_same_call_reaches_the_inside_when_it_is_allowed() -> None:
    async with http_server() as canary, outbound(LOOPBACK) as out:
        reached = await get(out, f"{canary.url}/path?key=1")
        assert (reached.status, reached.url) == (200, f"{canary.url}/path")
        assert (await get(out, f"http://localhost:{canary.port}/")).status == 200
        assert canary.received[0].headers["host"] == f"127.0.0.1:{canary.port}"


async def test_a_refusal_says_how_to_allow_the_call() -> None:
    async with outbound() as out:
        with pytest.raises(StepFailure, match="FLOWLEDGER_OUTBOUND_ALLOW") as caught:
            await get(out, "http://127.0.0.1:8123/x?token=1")
    error = caught.value
    assert (error.code, error.error_class, error.retryable) == (
        "outbound_refused",
        "permanent",
        False,
    )
    assert "token" not in error.message


@pytest.mark.parametrize("port", [22, 25, 5432, 6379, 11211])
async def test_ports_of_other_protocols_are_refused_even_on_allowed_hosts(port: int) -> None:
    async with outbound(LOOPBACK) as out:
        with pytest.raises(StepFailure, match=f"adding 127.0.0.1:{port} to"):
            await get(out, f"http://127.0.0.1:{port}/")


async def test_a_name_is_resolved_once_and_its_address_pinned() -> None:
    """Rebinding: the second answer would lead elsewhere, and is never asked for."""
    names = Names([LOOPBACK], ["10.0.0.1"])
    async with http_server() as server, outbound(LOOPBACK, names) as out:
        await get(out, f"http://rebinding.example:{server.port}/")
        assert names.asked == ["rebinding.example"]
        assert server.received[0].headers["host"] == f"rebinding.example:{server.port}"


async def test_of_several_addresses_only_permitted_ones_are_called() -> None:
    names = Names(["10.0.0.1", "::1", LOOPBACK])
    async with http_server() as server, outbound(LOOPBACK, names) as out:
        assert (await get(out, f"http://both.example:{server.port}/")).status == 200
    async with http_server() as canary, outbound("10.9.9.9", Names([LOOPBACK, "::1"])) as out:
        with pytest.raises(StepFailure, match="not a public address"):
            await get(out, f"http://inside.example:{canary.port}/")
        assert canary.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_each_redirect_is_checked(status: int) -> None:
    async with http_server() as canary:
        target = f"http://inside.example:{canary.port}/"
        async with http_server(lambda _: answer(status, location=target)) as server:
            names = {"public.example": "127.0.0.2", "inside.example": LOOPBACK}

            async def resolve(host: str, port: int) -> Sequence[str]:
                return [names.get(host, host)]

            out = Outbound(OutboundAllow.parse("start.example"), resolve=resolve)
            names["start.example"] = LOOPBACK
            with pytest.raises(StepFailure, match="not a public address"):
                await get(out, f"http://start.example:{server.port}/")
            await out.aclose()
        assert canary.connections == 0


async def test_three_redirects_are_followed_and_a_fourth_is_not() -> None:
    def count_down(request: Received) -> bytes:
        left = int(request.target.strip("/"))
        return answer(302, location=f"/{left - 1}") if left else answer(200, b"there")

    async with http_server(count_down) as server, outbound(LOOPBACK) as out:
        assert (await get(out, f"{server.url}/3")).body == b"there"
        with pytest.raises(StepFailure, match="redirected more than 3 times"):
            await get(out, f"{server.url}/4")


async def test_credentials_do_not_follow_a_redirect_to_another_origin() -> None:
    async with http_server() as other, outbound(LOOPBACK) as out:
        async with http_server(lambda _: answer(302, location=other.url)) as server:
            await get(out, server.url, Authorization="Bearer x", Accept="a/b", **{"X-Api-Key": "x"})
        headers = other.received[0].headers
        assert headers["accept"] == "a/b"
        assert not {"authorization", "x-api-key", "cookie"} & headers.keys()


async def test_a_body_does_not_follow_a_redirect_to_another_origin() -> None:
    async with http_server() as other, outbound(LOOPBACK) as out:
        async with http_server(lambda _: answer(307, location=other.url)) as server:
            request = OutboundRequest(method="POST", url=server.url, timeout_seconds=20, body=b"x")
            assert (await failure(out, request)).code == "outbound_refused"
        assert other.connections == 0


async def test_a_post_becomes_a_get_without_body_after_see_other() -> None:
    def see_other(request: Received) -> bytes:
        return answer(303, location="/done") if request.method == "POST" else answer()

    async with http_server(see_other) as server, outbound(LOOPBACK) as out:
        headers = {"Content-Type": "text/plain", "X-Api-Key": "k"}
        await out.send(
            OutboundRequest(
                method="POST", url=server.url, timeout_seconds=20, body=b"x", headers=headers
            )
        )
        second = server.received[1]
        assert (second.method, second.body, second.headers["x-api-key"]) == ("GET", b"", "k")
        assert "content-type" not in second.headers


async def test_cookies_of_an_answer_are_forgotten() -> None:
    async with http_server(lambda _: answer(set_cookie="a=b")) as server, outbound(LOOPBACK) as out:
        for _ in range(2):
            await get(out, server.url)
        assert all("cookie" not in request.headers for request in server.received)
        assert server.connections == 1


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with http_server() as proxy, http_server() as server, outbound(LOOPBACK) as out:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert (await get(out, server.url)).status == 200
        assert proxy.connections == 0


async def test_a_body_above_the_limit_is_refused_plain_or_packed() -> None:
    bomb = gzip.compress(bytes(50_000_000), mtime=0)

    def reply(request: Received) -> bytes:
        match request.target:
            case "/plain":
                return answer(200, bytes(1001))
            case "/bomb":
                return answer(200, bomb, content_encoding="gzip")
            case "/fits":
                return answer(200, gzip.compress(bytes(600), mtime=0), content_encoding="gzip")
            case _:
                two = gzip.compress(b"a" * 500, mtime=0) + gzip.compress(b"b" * 500)
                return answer(200, two, content_encoding="gzip")

    async with http_server(reply) as server, outbound(LOOPBACK, body_bytes_max=1000) as out:
        assert (await get(out, f"{server.url}/fits")).body == bytes(600)
        assert (await get(out, f"{server.url}/members")).body == b"a" * 500 + b"b" * 500
        for path in ("plain", "bomb"):
            with pytest.raises(StepFailure, match="more than 1000 bytes"):
                await get(out, f"{server.url}/{path}")


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", b"x"),
        ("gzip, gzip", gzip.compress(b"x", mtime=0)),
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(b"x" * 9, mtime=0)[:-4]),
        ("deflate", zlib.compress(b"x")),
    ],
)
async def test_a_packing_that_was_not_offered_or_is_broken_is_refused(
    encoding: str, body: bytes
) -> None:
    reply = answer(200, body, content_encoding=encoding)
    async with http_server(lambda _: reply) as server, outbound(LOOPBACK) as out:
        with pytest.raises(StepFailure) as caught:
            await get(out, server.url)
        assert caught.value.code == "bad_content_encoding"
        assert server.received[0].headers["accept-encoding"] == "gzip"


async def test_silence_ends_at_the_deadline() -> None:
    async with http_server(lambda _: b"") as server, outbound(LOOPBACK) as out:
        request = OutboundRequest(method="GET", url=server.url, timeout_seconds=0.05)
        error = await failure(out, request)
        assert (error.code, error.error_class, error.retryable) == ("timeout", "timeout", True)


@pytest.mark.parametrize(
    "reply", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]
)
async def test_an_answer_that_is_no_http_is_transient(reply: bytes) -> None:
    async with http_server(lambda _: reply) as server, outbound(LOOPBACK) as out:
        with pytest.raises(StepFailure) as caught:
            await get(out, server.url)
        assert (caught.value.code, caught.value.error_class) == ("network_error", "transient")


async def test_a_closed_port_and_an_unknown_name_are_transient() -> None:
    async with http_server() as server:
        closed = server.url
    async with outbound(LOOPBACK) as out:
        for url in (closed, "http://no-such-host.invalid/"):
            with pytest.raises(StepFailure) as caught:
                await get(out, url)
            assert (caught.value.code, caught.value.error_class) == ("network_error", "transient")


@pytest.mark.parametrize("url", PUBLIC_URLS_TEXT.split())
async def test_public_forms_are_not_blocked(url: str) -> None:
    assert mistake_of_url(url) is None


def test_messages_show_no_query_and_no_credentials() -> None:
    assert without_query("https://u:p@example.org/a?token=x#y") == "https://example.org/a"
    assert len(without_query("https://example.org/" + "a" * 900)) == 200
