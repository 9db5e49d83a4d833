"""Whether a workflow would run itself, by way of the published workflows that it runs."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple
from uuid import UUID

from domain.mistakes import Mistake
from domain.workflow import WorkflowState, workflow_uuid
from domain.workflow_calls import Call, calls_of

FOLLOWED_MAX: Final = 1_000
"""Versions that are looked at; a ring beyond them is found when it runs too deep."""


class Target(NamedTuple):
    """What a call means. `number` None is the newest version."""

    stream: UUID
    number: int | None


class CallCheck:
    """Follows the calls of one definition of the workflow `name` that is about to be published."""

    def __init__(
        self,
        workspace_id: str,
        name: str,
        named: Callable[[str], tuple[str, int | None]],
        load: Callable[[UUID], Awaitable[WorkflowState | None]],
    ) -> None:
        """`named` takes `wf-{name}-{n}` apart; `load` gives a workflow's state."""
        self._workspace_id = workspace_id
        self._own = workflow_uuid(workspace_id, name)
        self._named = named
        self._load = load

    async def remarks(self, calls: Iterable[Call]) -> tuple[list[Mistake], list[Mistake]]:
        """(mistakes: calls that lead back here, warnings: calls of what nobody has published)."""
        mistakes, warnings = [], []
        for call in calls:
            ring = await self._ring(call)
            if ring is not None:
                way = " -> ".join(ring)
                message = f"This workflow would run itself: {way}. Executions would never end."
                mistakes.append(Mistake(call.pointer, "cycle", message))
            elif await self._target(call) is None:
                message = (
                    f"There is no workflow {call.workflow!r}"
                    f"{'' if call.version is None else f' with version {call.version}'} yet; "
                    "the step fails until it is published."
                )
                warnings.append(Mistake(call.pointer, "unknown_workflow", message))
        return mistakes, warnings

    async def _ring(self, first: Call) -> list[str] | None:
        """The names on the way from `first` back here; None when it does not lead back."""
        ways: list[tuple[Call, list[str]]] = [(first, [])]
        seen: set[Target] = set()
        while ways and len(seen) < FOLLOWED_MAX:
            call, way = ways.pop()
            target = await self._target(call)
            way = [*way, call.workflow]
            if target is None or target in seen:
                continue
            seen.add(target)
            state = await self._load(target.stream)
            count = 0 if state is None else len(state.versions)
            if target.stream == self._own and target.number in (None, count + 1):
                return way
            if state is None or (target.number or 1) > count:
                continue
            version = state.numbered(target.number or count)
            ways += [(each, way) for each in calls_of(version.definition)]
        return None

    async def _target(self, call: Call) -> Target | None:
        try:
            stream, number = UUID(call.workflow), call.version
        except ValueError:
            stream, number = workflow_uuid(self._workspace_id, call.workflow), call.version
            if stream != self._own and await self._known(stream) is None:
                name, versioned = self._named(call.workflow)
                if not name:
                    return None
                stream, number = workflow_uuid(self._workspace_id, name), versioned
        if stream == self._own:
            return Target(stream, number)
        state = await self._known(stream)
        if state is None or (number or 1) > len(state.versions):
            return None
        return Target(stream, number)

    async def _known(self, stream: UUID) -> WorkflowState | None:
        state = await self._load(stream)
        mine = state is not None and state.workspace_id == self._workspace_id
        return state if mine else None
