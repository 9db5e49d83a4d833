"""Runs blocking functions beside the event loop, at most so many at once.

Not `concurrent.futures`: its threads are joined when the interpreter ends, so that one function
that hangs would keep the server from stopping. These threads are daemons.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

THREADS_MAX = 32


class BlockingCalls:
    """Room for `threads_max` blocking calls; further ones wait for their turn."""

    def __init__(self, threads_max: int = THREADS_MAX) -> None:
        self._room = asyncio.Semaphore(threads_max)

    async def run(self, function: Callable[[], Result]) -> Result:
        """The function's result or exception.

        Cancelling stops the waiting only: no thread can be killed. The function runs to its end,
        keeps its place until then, and its result is dropped.
        """
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Result] = loop.create_future()

        def settle(result: Result | None, error: BaseException | None) -> None:
            self._room.release()
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)  # type: ignore[arg-type]  # None is then a Result

        def work() -> None:
            result: Result | None = None
            error: BaseException | None = None
            try:
                result = function()
            except StopIteration as stop:  # a future refuses it
                error = RuntimeError(f"the function raised StopIteration: {stop}")
            except BaseException as raised:  # noqa: BLE001 - whatever it is, the caller gets it
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=work, name="flowledger-blocking", daemon=True).start()
        except RuntimeError:
            self._room.release()
            raise
        return await outcome
