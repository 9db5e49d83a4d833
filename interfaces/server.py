"""One serving process: listen, start the services, answer, and stop in order.

The first SIGTERM or Ctrl-C makes `/readyz` say 503 at once. Requests are taken a moment longer, so
that whoever balances the load can look; then those under way end, then running steps, and the rest
is handed back. A second signal ends the process at once; nothing acknowledged is lost by that.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Final

import uvicorn
import uvloop
from starlette.types import ASGIApp

from interfaces.bootstrap import Process, Services, Settings
from interfaces.cli_engine import start_failures
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.connection import Connection
from interfaces.garbage_collection import tune_process
from interfaces.http.app import create_app, create_health_app
from interfaces.stopping import SIGNALS, StopRequest

_DRAIN_SECONDS: Final = 4
"""For requests under way; with the longest stop of the settings (25) it stays under 30 s."""
_BACKLOG: Final = 2048

Opener = Callable[[Settings], Awaitable[Services]]
Announce = Callable[[str], None]


def serve_until_stopped(settings: Settings, open_process: Opener, announce: Announce) -> None:
    """Serve until a signal comes; `announce` gets the address once it answers.

    Raises `CommandFailed` when the address is taken or the start is refused.
    """
    with (
        listen(settings.host, settings.port, "--port") as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(settings, open_process, listener, announce))


async def _serve(
    settings: Settings, open_process: Opener, listener: socket.socket, announce: Announce
) -> None:
    with start_failures(settings):
        services = await open_process(settings)
    try:
        server = Server(create_app(services), lambda: announce(address_of(listener)))
        stop = StopRequest(services)
        server.hear_signals(stop)
        tune_process()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not serving.done():
            await asyncio.sleep(settings.drain_seconds)
            services.finish_requests()
            server.should_exit = True
        await serving
    finally:
        await services.close()


def work_until_stopped(
    settings: Settings,
    open_process: Callable[[Settings], Awaitable[Process]],
    announce: Callable[[str | None], None],
) -> None:
    """Run a process that answers nobody until a signal comes, and tell its health where the
    settings say; `announce` gets that address, None when there is none.

    Raises `CommandFailed` when the address is taken or the start is refused.
    """
    with contextlib.ExitStack() as stack:
        listener: socket.socket | None = None
        if settings.health_port is not None:
            listener = stack.enter_context(
                listen(settings.host, settings.health_port, "--health-port")
            )
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        runner.run(_work(settings, open_process, listener, announce))


async def _work(
    settings: Settings,
    open_process: Callable[[Settings], Awaitable[Process]],
    listener: socket.socket | None,
    announce: Callable[[str | None], None],
) -> None:
    with start_failures(settings):
        process = await open_process(settings)
    server: Server | None = None
    serving: asyncio.Task[None] | None = None
    try:
        stop = StopRequest(process)
        stop.listen()
        tune_process()
        if listener is None:
            announce(None)
        else:
            address = address_of(listener)
            server = Server(create_health_app(process), lambda: announce(address))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
        await stop.wait()
    finally:
        await process.close()
        if server is not None and serving is not None:
            server.should_exit = True
            await serving


class Server(uvicorn.Server):
    """uvicorn, with our own idea of signals and of being ready."""

    def __init__(self, app: ASGIApp, when_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http=Connection,
                ws="none",
                lifespan="off",
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
        self._when_ready = when_ready
        self._stop: StopRequest | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_ready()

    def hear_signals(self, stop: StopRequest) -> None:
        """Pass signals on to `stop`, for the rest of the process."""
        self._stop = stop
        # A bound method: open event streams find the server, and its end, through it.
        for number in SIGNALS:
            signal.signal(number, self.handle_exit)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: uvicorn would give the signals back and raise them again before we closed."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._stop is not None:
            self._stop.hear(sig, frame)


def listen(host: str, port: int, option: str) -> socket.socket:
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
            f"Choose another with --host and {option}; {option} 0 takes a free one.",
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """`http://127.0.0.1:8000`, with the port that was really taken."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
