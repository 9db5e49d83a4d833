"""How a process ends: the first signal asks it to, a second one or half a minute makes it."""

import asyncio
import os
import signal
import threading
from types import FrameType
from typing import Final

from interfaces.bootstrap import Process

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
STOP_SECONDS_MAX: Final = 29.0
"""A store that does not answer any more must not keep the process: what is not given back lapses,
and nothing acknowledged is lost."""


class StopRequest:
    """Hears signals for the rest of the process; closing it must hear a second one, too."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Event()

    def listen(self) -> None:
        """Take over the signals; in the main thread."""
        for number in SIGNALS:
            signal.signal(number, self.hear)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """A signal came: the process is not ready any more from this moment on."""
        del frame
        if self._process.draining:
            os._exit(128 + number)
        self._process.draining = True
        limit = threading.Timer(STOP_SECONDS_MAX, os._exit, (128 + number,))
        limit.daemon = True
        limit.start()
        self._loop.call_soon_threadsafe(self._heard.set)

    async def wait(self) -> None:
        """Until the first signal."""
        await self._heard.wait()
