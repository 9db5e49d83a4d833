"""Bugs that the simulation must find.

A bug is a part of the simulated database without one of its checks, or the product with a few words
of its source changed, as somebody might change them: `plant` compiles the changed module in the
place of the real one. It must be called before the product is imported, so it is for a process of
its own: `python -m tests.simulation --bug NAME`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Final


@dataclass(frozen=True, slots=True)
class Change:
    """In the source of `module`, `right` (there once) becomes `wrong`."""

    module: str
    right: str
    wrong: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """`flaws` names what the simulated parts do wrong: members of `Flaws` and `Checks`.

    `invariants` are those it breaks, one of which is to be found in the seeds from `seeds_from` to
    `seeds_max`; a bug that breaks few seeds begins shortly before the first that was seen to break.
    """

    name: str
    what: str
    invariants: frozenset[str]
    changes: tuple[Change, ...] = ()
    flaws: frozenset[str] = frozenset()
    seeds_from: int = 1
    seeds_max: int = 420


BUGS: Final = (
    Bug(
        name="no-epoch-check",
        what="Neither the queue nor the engine looks at the epoch of a result.",
        invariants=frozenset({"I8"}),
        changes=(Change("domain.decisions", "or outcome.epoch < step.epoch  #", "or False  #"),),
        flaws=frozenset({"unchecked_lease"}),
        seeds_from=2_850,
        seeds_max=3_400,
    ),
    Bug(
        name="hand-back-without-version",
        what="A lease is given back although somebody wrote meanwhile.",
        invariants=frozenset({"I18"}),
        flaws=frozenset({"unchecked_hand_back"}),
        seeds_max=1_000,
    ),
    Bug(
        name="complete-after-cancel-requested",
        what="What was undone for a cancel ends as completed.",
        invariants=frozenset({"I4", "I16"}),
        changes=(
            Change(
                "domain.compensation",
                "if state.state == CANCELLING:\n        return ev.Cancelled(state.attempt)",
                "if state.state == CANCELLING:\n"
                "        return ev.Completed(state.attempt, False, None, None)",
            ),
        ),
        seeds_from=111,
    ),
    Bug(
        name="budget-not-clipped",
        what="A re-try waits as long as its policy says, whatever is left of the budget.",
        invariants=frozenset({"I15"}),
        changes=(
            Change(
                "domain.recovery",
                "if left is not None and delay_ms * _MILLISECOND >= left:",
                "if False:",
            ),
        ),
    ),
    Bug(
        name="finished-step-again",
        what="A retry resets finished steps too.",
        invariants=frozenset({"I7"}),
        changes=(
            Change(
                "domain.reopening",
                "if is_unfinished(path, step, others, finished):",
                "if True:",
            ),
        ),
    ),
    Bug(
        name="checkpoint-before-rows",
        what="The checkpoint is stored before the rows, in a transaction of its own.",
        invariants=frozenset({"I9"}),
        flaws=frozenset({"checkpoint_first"}),
    ),
    Bug(
        name="timer-early",
        what="A wait ends half a second before its time.",
        invariants=frozenset({"I19"}),
        changes=(
            Change(
                "domain.planner",
                "if step.due_at is None or step.due_at > now:\n        return ()\n    given",
                "if step.due_at is None or step.due_at > now + timedelta(seconds=0.5):\n"
                "        return ()\n    given",
            ),
            Change(
                "domain.planner",
                "and (step.due_at is None or step.due_at > now)",
                "and (step.due_at is None or step.due_at > now + timedelta(seconds=0.5))",
            ),
        ),
    ),
    Bug(
        name="duplicate-result",
        what="A result counts although the step has one.",
        invariants=frozenset({"I4", "I7", "I13"}),
        changes=(
            Change("domain.decisions", "or step.state != RUNNING\n        or (step.", "or (step."),
        ),
    ),
    Bug(
        name="cancelled-branch-succeeds",
        what="A branch whose steps were cancelled, as its time was over, counts as a success.",
        invariants=frozenset({"I20"}),
        changes=(
            Change(
                "domain.lanes",
                "done=fan.done + (end.state == COMPLETED),",
                "done=fan.done + (end.error is None or end.error.code == 'branch_timeout'),",
            ),
        ),
    ),
    Bug(
        name="compensation-in-order",
        what="What was finished first is undone first.",
        invariants=frozenset({"I16"}),
        changes=(
            Change(
                "domain.compensation",
                "owner = state.to_undo[-1]",
                "owner = state.to_undo[0]",
            ),
        ),
    ),
    Bug(
        name="result-of-an-earlier-try",
        what="A result counts for the try that waits, whichever try it is of.",
        invariants=frozenset({"I22"}),
        changes=(
            Change(
                "domain.dispatching",
                "step.dispatched.correlation_id == correlation_id:",
                "step.dispatched.correlation_id[:-17] == correlation_id[:-17]:",
            ),
            Change(
                "application.agent_results", "if given != known:", "if given[:-17] != known[:-17]:"
            ),
        ),
    ),
    Bug(
        name="result-of-a-lost-lease",
        what="Whoever had a task once may end it, though it was given to another.",
        invariants=frozenset({"I22"}),
        changes=(
            Change(
                "application.tasks",
                "found = next((each for each in leases if each.epoch == epoch), None)",
                "found = next((each for each in leases if each.epoch >= epoch), None)",
            ),
        ),
    ),
    Bug(
        name="task-settled-first",
        what="A task is given to nobody any more before its result is recorded.",
        invariants=frozenset({"I18"}),
        changes=(
            Change(
                "application.tasks",
                "answer = await self._results.record("
                "lease.workspace_id, lease.run_id, lease.task_id, result)\n"
                "        await self._settle(lease)",
                "await self._settle(lease)\n"
                "        answer = await self._results.record("
                "lease.workspace_id, lease.run_id, lease.task_id, result)",
            ),
        ),
        seeds_from=401,
        seeds_max=1_000,
    ),
    Bug(
        name="late-result-noted-again",
        what="Each result that comes late is noted, also the second of a task.",
        invariants=frozenset({"I22"}),
        changes=(Change("application.agent_results", "if late in known.commands:", "if False:"),),
    ),
    Bug(
        name="relay-goes-on",
        what="What the broker did not take is not sent again.",
        invariants=frozenset({"I18"}),
        changes=(
            Change(
                "application.relay",
                "self._position = self._kept = await self._log.position()",
                "self._kept = await self._log.position()\n"
                "        self._position = max(self._position, self._kept)",
            ),
            Change(
                "application.relay",
                "await self._send_or_tell(events, await self._messages(events))\n"
                "                self._position = events[-1].position",
                "self._position = events[-1].position\n"
                "                await self._send_or_tell(events, await self._messages(events))",
            ),
        ),
    ),
)


class BugNotThere(Exception):
    """The source does not hold, exactly once, what a bug changes: write the bug anew."""


class _Changed(SourceFileLoader):
    """Compiles a source with changes; reads and writes no byte code."""

    def __init__(self, name: str, path: str, changes: Sequence[Change]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        for change in self._changes:
            if source.count(change.right) != 1:
                raise BugNotThere(f"{change.module} does not hold once: {change.right!r}")
            source = source.replace(change.right, change.wrong)
        return self.source_to_code(source.encode(), self.path)


class _Planter(MetaPathFinder):
    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        changes = [each for each in self._bug.changes if each.module == fullname]
        spec = PathFinder.find_spec(fullname, path) if changes else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Changed(fullname, spec.origin, changes)
        return spec


def bug_named(name: str) -> Bug:
    """The bug; a KeyError when there is none of that name."""
    return {bug.name: bug for bug in BUGS}[name]


def plant(bug: Bug) -> None:
    """Put a bug into the product of this process."""
    early = [each.module for each in bug.changes if each.module in sys.modules]
    if early:
        raise RuntimeError(f"{', '.join(early)} is imported already")
    sys.meta_path.insert(0, _Planter(bug))
