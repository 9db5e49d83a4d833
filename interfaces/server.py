"""One serving process: listen, start the services, answer, and stop in order.

The first SIGTERM or Ctrl-C stops listening, lets requests under way end, then running steps, and
hands the rest back. A second one ends the process at once; nothing acknowledged is lost by that.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import uvicorn
import uvloop

from interfaces.bootstrap import Services, Settings, tune_process
from interfaces.cli_engine import start
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.http.app import create_app

_DRAIN_SECONDS: Final = 4
"""For requests under way; with the longest `grace_seconds` (25) the stop stays under 30 s."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_BACKLOG: Final = 2048


def serve_until_stopped(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until a signal comes; `announce` gets the address once it answers.

    Raises `CommandFailed` when the address is taken or the start is refused.
    """
    with (
        listen(settings.host, settings.port) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(settings, listener, announce))


async def _serve(
    settings: Settings, listener: socket.socket, announce: Callable[[str], None]
) -> None:
    services = await start(settings)
    try:
        server = Server(services, lambda: announce(address_of(listener)))
        server.take_signals()
        tune_process()
        await server.serve(sockets=[listener])
    finally:
        await services.close()


class Server(uvicorn.Server):
    """uvicorn, with our own idea of signals and of being ready."""

    def __init__(self, services: Services, when_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(services),
                log_config=None,
                access_log=False,
                http="httptools",
                ws="none",
                lifespan="off",
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_ready()

    def take_signals(self) -> None:
        """For the rest of the process: closing the services must hear a second signal, too."""
        # A bound method: open event streams find the server, and its end, through it.
        for number in _SIGNALS:
            signal.signal(number, self.handle_exit)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: uvicorn would give the signals back and raise them again before we closed."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a taken address is told before anything is opened."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise CommandFailed(
            ExitCode.NOT_READY,
            f"Cannot listen on {host} port {port}: {error.strerror or error}.",
            "Choose another with --host and --port; --port 0 takes a free one.",
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """`http://127.0.0.1:8000`, with the port that was really taken."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
