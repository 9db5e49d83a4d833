"""Whether the store answers, and calls to it that end as soon as it does not.

While the store is lost every call is refused at once. Who finds that out is in `store_watch.py`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from application.ports import Overloaded, StoreUnavailable

CALLS_WAITING_MAX: Final = 1_000

T = TypeVar("T")


class StoreHealth:
    """What is known of the store. `lost`, `found` and `answer` belong to the event loop."""

    def __init__(self) -> None:
        self._cause: str | None = None
        self._waiting: set[asyncio.Future[Any]] = set()

    @property
    def cause(self) -> str | None:
        """Why the store does not answer; None while it does."""
        return self._cause

    def require(self) -> None:
        """Raises StoreUnavailable while the store does not answer; from any thread."""
        if self._cause is not None:
            raise StoreUnavailable(self._cause)

    def lost(self, cause: str) -> None:
        """It does not answer: tell everybody who waits for an answer."""
        self._cause = f"the database does not answer: {cause}"
        waiting, self._waiting = self._waiting, set()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(StoreUnavailable(self._cause))

    def found(self) -> None:
        """It answers."""
        self._cause = None

    async def answer(self, work: "asyncio.Future[T]") -> T:
        """The result of `work`, or StoreUnavailable when the store is lost first.

        Work that has not begun by then is not begun any more.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.add(answer)

        def pass_on(done: "asyncio.Future[T]") -> None:
            if done.cancelled():
                answer.cancel()
            elif (error := done.exception()) is None:
                if not answer.done():
                    answer.set_result(done.result())
            elif not answer.done():
                answer.set_exception(error)

        work.add_done_callback(pass_on)
        try:
            return await answer
        finally:
            self._waiting.discard(answer)
            work.cancel()


class StoreThreads:
    """Blocking calls to the store, some at a time; those beyond `waiting_max` are refused."""

    def __init__(
        self, name: str, count: int, health: StoreHealth, *, waiting_max: int | None = None
    ) -> None:
        self._name = name
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._health = health
        self._waiting_max = waiting_max
        self._calls = 0

    async def run(self, call: Callable[[], T], *, calls: int = 1) -> T:
        """What `call` returns, which stands for so many `calls`. Raises StoreUnavailable,
        Overloaded, or what `call` raises.
        """
        self._health.require()
        if self._waiting_max is not None and self._calls >= self._waiting_max:
            raise Overloaded(f"{self._calls} calls wait for the database ({self._name}); try again")
        self._calls += calls
        try:
            loop = asyncio.get_running_loop()
            return await self._health.answer(loop.run_in_executor(self._executor, call))
        finally:
            self._calls -= calls

    @property
    def waiting(self) -> int:
        """Calls that have not been answered."""
        return self._calls

    def close(self) -> None:
        """End the threads after what they do now."""
        self._executor.shutdown(cancel_futures=True)
