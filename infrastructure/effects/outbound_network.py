"""The network under outbound HTTP: every connection goes to an address that was looked at."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address

import httpcore2
import httpx2

from infrastructure.effects.outbound_addresses import OutboundAllow, refusal_of_address

CONNECTIONS_MAX = 200

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From host and port to addresses as text; raises `OSError` when the name has none."""


class Refused(Exception):
    """An address, port or URL that must not be called; the message says how to allow it."""


async def system_addresses(host: str, port: int) -> Sequence[str]:
    """The addresses the operating system knows for a host, in its order of preference."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Opens connections to permitted addresses only; name and TLS host stay those of the URL."""

    def __init__(self, allow: OutboundAllow, resolve: Resolve) -> None:
        self._allow = allow
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Tries each permitted address in turn; raises `Refused` when there is none."""
        failure: Exception | None = None
        for address in await self._permitted(host, port, timeout):
            try:
                return await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore2.ConnectError(f"{host} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise Refused("unix sockets are never called")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _permitted(self, host: str, port: int, seconds: float | None) -> list[str]:
        name = host.lower().removesuffix(".")
        if not self._allow.permits_port(name, port):
            raise Refused(
                f"port {port} is not one for HTTP calls; the operator can allow it by adding "
                f"{name}:{port} to FLOWLEDGER_OUTBOUND_ALLOW"
            )
        try:
            async with asyncio.timeout(seconds):
                addresses = [ip_address(text) for text in await self._resolve(host, port)]
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"{host} was not resolved in time") from error
        except (OSError, ValueError) as error:
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
        refusals = {address: refusal_of_address(address) for address in addresses}
        permitted = [
            str(address)
            for address, refusal in refusals.items()
            if refusal is None or self._allow.permits_address(name, address)
        ]
        if addresses and not permitted:
            raise Refused(
                f"{refusals[addresses[0]]}; the operator can allow it by adding {name} or its "
                "network to FLOWLEDGER_OUTBOUND_ALLOW"
            )
        return permitted


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """The library's transport on a pool with our network.

    The pool is a private attribute: the library has no argument for the network. A test pins it.
    """

    def __init__(self, network: httpcore2.AsyncNetworkBackend, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls, trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=CONNECTIONS_MAX // 4,
            keepalive_expiry=15.0,
            network_backend=network,
        )
