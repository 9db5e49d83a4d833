"""An event loop whose time passes only when nothing else is to be done, and then at once."""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from contextvars import Context
from traceback import format_exception
from typing import Any, NamedTuple


class Stuck(Exception):
    """Nothing is scheduled any more, and somebody still waits."""


class Crash(NamedTuple):
    """An error that nobody caught: the coroutine or callback it ended, and its traceback."""

    where: str
    error: str


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address in memory."""

    def __init__(
        self,
        work: Coroutine[Any, Any, Any],
        *,
        loop: asyncio.AbstractEventLoop,
        number: int,
        context: Context | None = None,
    ) -> None:
        self._number = number
        super().__init__(work, loop=loop, context=context)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Waiting(selectors.BaseSelector):
    """Hears of no file, and lets time pass instead of waiting."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("everybody waits, and nothing is scheduled")
        if timeout > 0:
            self.seconds += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at 0 seconds; a minute of sleeping costs nothing."""

    def __init__(self) -> None:
        self._waiting = _Waiting()
        super().__init__(self._waiting)
        self.tasks: list[NumberedTask] = []
        """All there ever were: asyncio itself would let go of one that nobody can wake."""
        self.set_task_factory(self._task)
        self._callbacks_failed: list[tuple[str, BaseException]] = []
        self.set_exception_handler(self._failed)

    def _task(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any],
        context: Context | None = None,
    ) -> NumberedTask:
        task = NumberedTask(work, loop=loop, number=len(self.tasks), context=context)
        self.tasks.append(task)
        return task

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._waiting.seconds

    def microseconds(self) -> int:
        """The same as a whole number."""
        return round(self._waiting.seconds * 1_000_000)

    def crashes(self, *foreseen: type[BaseException]) -> list[Crash]:
        """What has ended with an error that is not `foreseen`, each error once."""
        failed = [
            (each.get_coro().__qualname__, error)
            for each in self.tasks
            if each.done() and not each.cancelled() and (error := each.exception()) is not None
        ]
        failed += self._callbacks_failed
        once = {id(error): (where, error) for where, error in reversed(failed)}
        return [
            Crash(where, "".join(format_exception(error)).rstrip())
            for where, error in reversed(once.values())
            if not isinstance(error, foreseen)
        ]

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "handle" in context and "exception" in context:
            self._callbacks_failed.append((repr(context["handle"]), context["exception"]))
        else:
            loop.default_exception_handler(context)
