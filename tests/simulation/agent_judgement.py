"""I22: whether what agents did, were told and gave back agrees with the log and the tables."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from uuid import UUID

from domain import events as ev
from domain.dispatching import awaits_result, idempotency_key
from domain.error_classes import STEP_TIMEOUT
from domain.events import Event
from domain.execution import fold
from domain.json_values import Json
from domain.outcomes import DELIVERIES_MAX
from tests.invariants import Violation, streams_of
from tests.simulation.agents import Agents, Result
from tests.simulation.scenario import Story
from tests.simulation.task_leases import TaskLeases, key_of

Try: TypeAlias = tuple[int, str, int]
WORKER_LOST: Final = "worker_lost"
_Outcome: TypeAlias = ev.StepCompleted | ev.StepFailed


@dataclass(slots=True)
class Dispatched:
    """What the log says of one task."""

    where: str
    sent: ev.TaskDispatched
    outcome: _Outcome | None = None
    late: int = 0


def agents_judged(story: Story) -> Iterator[Violation]:
    """Every violation."""
    agents = story.agents
    yield from (Violation("I22", where, what) for where, what in agents.complaints)
    tasks: dict[str, Dispatched] = {}
    for stream_id, events in streams_of(story.store.log).items():
        yield from _read(stream_id, events, tasks)
    for task in tasks.values():
        yield from _of_outcome(task, agents, story.leases)
    for result in agents.results:
        if (found := tasks.get(result.task.correlation_id)) is not None:
            yield from _of_result(result, found)
    yield from _of_keys(story)
    if not story.restless:
        yield from _of_rows(story, tasks)
        yield from _not_sent(story, tasks)


# --- the log ---


def _read(
    stream_id: UUID, events: Iterable[Event], tasks: dict[str, Dispatched]
) -> Iterator[Violation]:
    """Fill `tasks`, by correlation id."""
    own: dict[Try, Dispatched] = {}
    for event in events:
        data = event.data
        where = f"{stream_id} v{event.version} {type(data).__name__}"
        if isinstance(data, ev.TaskDispatched):
            key = (data.attempt, data.path, data.try_no)
            if key in own or data.correlation_id in tasks:
                yield Violation("I22", where, f"{data.task_id} goes out twice")
            own[key] = tasks[data.correlation_id] = Dispatched(where, data)
        elif isinstance(data, ev.StepCompleted | ev.StepFailed | ev.LateResultIgnored):
            task = own.get((data.attempt, data.path, data.try_no))
            if task is None:
                continue
            if not isinstance(data, ev.LateResultIgnored):
                task.where, task.outcome = where, data
            elif not data.epoch:
                task.late += 1
                if task.late > 1:
                    yield Violation("I22", where, f"{data.path} has two notes of late results")


def _answer_in(output: Json) -> int | None:
    found = output.get("answer") if isinstance(output, dict) else None
    return found if isinstance(found, int) else None


def _of_outcome(task: Dispatched, agents: Agents, leases: TaskLeases) -> Iterator[Violation]:
    """What is recorded is what one came to who had the task, or the time was over."""
    outcome, sent = task.outcome, task.sent
    if outcome is None:
        return
    number = _answer_in(outcome.output)
    if number is not None:
        result = agents.results[number]
        if result.task.correlation_id != sent.correlation_id:
            yield Violation("I22", task.where, f"answer {number} is of another task")
        elif not result.fair:
            yield Violation("I22", task.where, f"answer {number} is of one who had no lease")
        return
    code = outcome.code if isinstance(outcome, ev.StepFailed) else ""
    if code == WORKER_LOST:
        lost = [each.delivery for each in leases.leases("default", sent.task_id)]
        if max(lost, default=0) <= DELIVERIES_MAX:
            yield Violation("I22", task.where, f"given up after {lost} deliveries")
    elif code != STEP_TIMEOUT:
        yield Violation("I22", task.where, f"nobody answered so: {code!r}")


def _of_result(result: Result, task: Dispatched) -> Iterator[Violation]:
    """What an agent was told is what became of its result."""
    recorded = None if task.outcome is None else _answer_in(task.outcome.output)
    counts = recorded == result.number
    if len(result.told) > 1:
        yield Violation("I22", task.where, f"answer {result.number} was called late and in time")
    if True in result.told and not counts:
        what = f"answer {result.number} was accepted, and {recorded} is recorded"
        yield Violation("I22", task.where, what)
    if False in result.told and (counts or not task.late):
        yield Violation("I22", task.where, f"answer {result.number} was told that it is late")


# --- what agents were given ---


def _of_keys(story: Story) -> Iterator[Violation]:
    """What comes over a topic has the key of its step, and is told as the log has it."""
    if story.topic is None:
        return
    for task in story.topic.tasks:
        found = story.store.streams[UUID(task.run_id.removeprefix("run-"))]
        sent = [
            data
            for each in found
            if isinstance(data := each.event.data, ev.TaskDispatched)
            and data.correlation_id == task.correlation_id
        ]
        where = f"{task.run_id.removeprefix('run-')} {task.task_id}"
        if len(sent) != 1 or task.attempt is None or task.try_no is None:
            yield Violation("I22", where, f"was sent, and is {len(sent)} times in the log")
            continue
        (only,) = sent
        key = idempotency_key(
            found[0].event.execution_id,
            only.path,
            task.attempt,
            task.try_no,
            per_try=only.key_per_try,
        )
        if (only.transport, task.idempotency_key) != ("kafka", key):
            yield Violation("I22", where, f"was sent with the key {task.idempotency_key}")


def _not_sent(story: Story, tasks: Mapping[str, Dispatched]) -> Iterator[Violation]:
    """A task that nobody heard of."""
    sent = set() if story.topic is None else {each.correlation_id for each in story.topic.tasks}
    for correlation_id, task in tasks.items():
        if task.sent.transport == "kafka" and correlation_id not in sent:
            yield Violation("I22", task.where, f"{task.sent.task_id} was never sent")


# --- the tables ---


def _of_rows(story: Story, tasks: dict[str, Dispatched]) -> Iterator[Violation]:
    """One row for each task, which says how it ended."""
    rows = {each.correlation_id: each for each in story.leases.tasks()}
    for correlation_id in rows.keys() ^ tasks.keys():
        yield Violation("I22", correlation_id, "is in the log or in the tables, not in both")
    awaited = _awaited(story)
    for correlation_id in rows.keys() & tasks.keys():
        row, task = rows[correlation_id], tasks[correlation_id]
        wanted = _statuses(task, awaited=correlation_id in awaited)
        if row.status not in wanted:
            yield Violation("I22", task.where, f"its row says {row.status}, not {wanted}")
        lease = story.leases.newest.get(key_of(row))
        if lease is not None and lease.settled and row.status == "OPEN":
            yield Violation("I22", task.where, "nobody is given it, and it is open")


def _awaited(story: Story) -> frozenset[str]:
    """Correlation ids of what has no answer yet, in no execution that has ended."""
    found = set()
    for recorded in story.store.streams.values():
        if not isinstance(recorded[0].event.data, ev.Requested):
            continue
        state = fold(each.event for each in recorded)
        if state is None:
            continue
        found |= {
            step.dispatched.correlation_id
            for path, step in state.steps.items()
            if step.dispatched is not None and awaits_result(state, path)
        }
    return frozenset(found)


def _statuses(task: Dispatched, *, awaited: bool) -> tuple[str, ...]:
    if awaited:
        return ("OPEN",)
    if task.outcome is None:  # cancelled or left out; or called done by hand
        return ("CANCELLED", "DONE")
    late = isinstance(task.outcome, ev.StepFailed) and task.outcome.code == STEP_TIMEOUT
    return ("TIMED_OUT",) if late else ("DONE",)
