"""HTTP to the outside: resolve once, refuse what is not public, connect to that very address.

`Outbound` is the only way out for actions, webhooks and agents. It knows no proxy, no netrc, no
unix socket and no cookie; each redirect is checked like the first URL.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin

import httpx2

from application.steps import StepFailure
from infrastructure.effects.outbound_addresses import OutboundAllow
from infrastructure.effects.outbound_body import read_body
from infrastructure.effects.outbound_network import (
    GuardedNetwork,
    GuardedTransport,
    Refused,
    Resolve,
    system_addresses,
)
from infrastructure.effects.outbound_urls import checked_url, without_query

CONNECT_SECONDS_MAX = 10.0
BODY_BYTES_MAX = 1_000_000
REDIRECTS_MAX = 3

# What may follow a redirect to another origin; all else may be a credential.
_HEADERS_ACROSS_ORIGINS = frozenset(
    (
        "accept",
        "accept-language",
        "content-type",
        "user-agent",
        "idempotency-key",
        "x-flowledger-attempt",
        "x-flowledger-try",
        "x-flowledger-epoch",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundRequest:
    """One request; `url` is absolute, `headers` are checked text, `timeout_seconds` covers all."""

    method: str
    url: str
    timeout_seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    redirects_max: int = REDIRECTS_MAX
    """With 0 a redirect is an answer like any other."""


@dataclass(frozen=True, slots=True)
class OutboundAnswer:
    """What came back, decoded; header names are lower case, `url` has no query."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    url: str


class Outbound:
    """Sends guarded requests over one shared connection pool, made at the first request."""

    def __init__(
        self,
        allow: OutboundAllow,
        *,
        resolve: Resolve = system_addresses,
        tls: ssl.SSLContext | None = None,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        self._network = GuardedNetwork(allow, resolve)
        self._tls = tls
        self._body_bytes_max = body_bytes_max
        self._transport: GuardedTransport | None = None

    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        """Sends a request and follows its redirects; any status is an answer.

        Raises `StepFailure` with code `outbound_refused`, `bad_url`, `too_many_redirects` or
        `body_too_large` (permanent), `timeout`, or `network_error` (transient).
        """
        shown = without_query(request.url)
        try:
            async with asyncio.timeout(request.timeout_seconds):
                return await self._follow(request)
        except Refused as error:
            raise StepFailure(
                "outbound_refused", f"{shown}: {error}", error_class="permanent"
            ) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            message = f"{shown} did not answer within {request.timeout_seconds:g} s"
            raise StepFailure("timeout", message, error_class="timeout") from error
        except httpx2.HTTPError as error:
            message = f"{shown}: {error or type(error).__name__}"
            raise StepFailure("network_error", message, error_class="transient") from error

    async def aclose(self) -> None:
        """Closes all connections; a later request would open new ones."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _follow(self, request: OutboundRequest) -> OutboundAnswer:
        method, url = request.method.upper(), checked_url(request.url)
        headers, body = dict(request.headers), request.body
        for hop in range(request.redirects_max + 1):
            answer = await self._exchange(method, url, headers, body, request.timeout_seconds)
            location = answer.headers.get("location", "")
            is_redirect = answer.status in (301, 302, 303, 307, 308) and location != ""
            if not is_redirect or request.redirects_max == 0:
                return answer
            if hop == request.redirects_max:
                break
            target = checked_url(urljoin(str(url), location))
            if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
                method, body = ("HEAD" if method == "HEAD" else "GET"), b""
                headers = {k: v for k, v in headers.items() if k.lower() != "content-type"}
            if _origin(target) != _origin(url):
                headers = _headers_for_other_origin(url, target, headers, body)
            url = target
        raise StepFailure(
            "too_many_redirects",
            f"{without_query(request.url)} redirected more than {request.redirects_max} times; "
            "call the final address",
            error_class="permanent",
        )

    async def _exchange(
        self,
        method: str,
        url: httpx2.URL,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float,
    ) -> OutboundAnswer:
        seconds = min(timeout_seconds, CONNECT_SECONDS_MAX)
        request = httpx2.Request(
            method,
            url,
            # Only what `read_body` unpacks within its limit may be offered.
            headers={"User-Agent": "flowledger", **headers, "Accept-Encoding": "gzip"},
            content=body or None,
            extensions={"timeout": {"connect": seconds, "pool": timeout_seconds}},
        )
        # The transport without the library's client: a client would keep an answer's cookies and
        # send them with another workflow's call.
        response = await self._opened().handle_async_request(request)
        shown = without_query(str(url))
        try:
            content = await read_body(response, bytes_max=self._body_bytes_max, shown=shown)
        finally:
            await response.aclose()
        return OutboundAnswer(
            response.status_code,
            response.reason_phrase,
            dict(response.headers.items()),
            content,
            shown,
        )

    def _opened(self) -> GuardedTransport:
        if self._transport is None:
            tls = self._tls or httpx2.create_ssl_context(trust_env=False)
            self._transport = GuardedTransport(self._network, tls)
        return self._transport


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _headers_for_other_origin(
    source: httpx2.URL, target: httpx2.URL, headers: Mapping[str, str], body: bytes
) -> dict[str, str]:
    if body or (source.scheme == "https" and target.scheme == "http"):
        raise Refused(
            f"it redirects {'a body' if body else 'from https'} to {without_query(str(target))}; "
            "call that address itself if it is right"
        )
    return {
        name: value for name, value in headers.items() if name.lower() in _HEADERS_ACROSS_ORIGINS
    }
