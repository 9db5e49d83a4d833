"""What executions ask people, tasks and questions alike: which of it a batch changed."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from domain.execution import ExecutionState
from infrastructure.projections.folding import ExecutionChange

Asked = TypeVar("Asked")


def changed(
    change: ExecutionChange,
    asked: Callable[[ExecutionState], Mapping[str, Asked]],
    status: Callable[[ExecutionState, Asked], str],
) -> Iterator[Asked]:
    """What is new, was changed, or has another status because its execution has moved on."""
    before, after = change.before, change.after
    now, earlier = asked(after), {} if before is None else asked(before)
    for name in sorted(now):
        item, known = now[name], earlier.get(name)
        if (
            before is None
            or known is None
            or known is not item
            or status(before, known) != status(after, item)
        ):
            yield item
