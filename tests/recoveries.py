"""Executions whose steps recover in every way, or do not: stories for tables and figures."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from application.recovery_history import Recoveries, RecoveryAttempt, attempt_moves
from domain.execution import ExecutionState, evolve
from tests.builders import Run, fork, parallel, step, workflow

CHEAP: Any = {"id": "cheap", "do": {"action": "call_api"}}


def swap(*, asks: bool = False, critical: bool = True, **recovery: Any) -> Run:
    """`before` has worked for a second when `swap` begins, which fails 2 seconds later."""
    stages: list[Any] = [
        {"kind": "retry", "attempts": 2, "base_delay_ms": 1_000},
        {"kind": "alternative", **CHEAP},
    ]
    stages += [{"kind": "ask", "answer_timeout_ms": 60_000}] if asks else []
    steps = {
        "before": step("swap"),
        "swap": step("after", recovery=stages, critical=critical),
        "after": step(),
    }
    run = Run(workflow(steps), recovery={"max_recovery_time_ms": 30_000, **recovery})
    run.go()
    run.now += timedelta(seconds=1)
    run.succeed("before")
    fail(run, 2)
    return run


def fail(run: Run, seconds: float, path: str = "swap", **fields: Any) -> None:
    """The step's present try fails after a while."""
    run.now += timedelta(seconds=seconds)
    run.fail(path, **{"error_class": "transient", "message": "timeout", **fields})


def recovered_by_retry() -> Run:
    """At the second re-try, 4.5 seconds after the failure; the waits are 1 and 2 seconds."""
    run = swap()
    run.pass_to_due()
    fail(run, 0.5)
    run.pass_to_due()
    run.now += timedelta(seconds=1)
    run.succeed("swap")
    return run.succeed_all()


def rerouted(*, asks: bool = False, critical: bool = True) -> Run:
    """All re-tries have failed, 3 seconds after the failure; the alternative runs."""
    run = swap(asks=asks, critical=critical)
    for _ in range(2):
        run.pass_to_due()
        fail(run, 0)
    return run


def recovered_by_alternative() -> Run:
    """In 5 seconds."""
    run = rerouted()
    run.now += timedelta(seconds=2)
    run.succeed("swap~alt.cheap")
    return run.succeed_all()


def asked(*, critical: bool = True) -> Run:
    """Nothing has helped; a person is asked 3 seconds after the failure."""
    run = rerouted(asks=True, critical=critical)
    fail(run, 0, "swap~alt.cheap", error_class="permanent", message="no", retryable=False)
    return run


def recovered_by_answer(answer: str = "retry", path: str = "swap") -> Run:
    """After 40 seconds, 30 of which a person was waited for."""
    run = asked()
    run.now += timedelta(seconds=30)
    run.answer(answer)
    run.go()
    run.now += timedelta(seconds=7)
    run.succeed(path)
    return run.succeed_all()


def given_up(answer: str | None = "skip") -> Run:
    """By a person, or because nobody answers in time."""
    run = asked(critical=False)
    if answer is None:
        run.pass_time(60)
        return run.succeed_all()
    run.now += timedelta(seconds=10)
    run.answer(answer)
    return run.succeed_all()


def failed_for_good() -> Run:
    """The failure stands and ends the execution."""
    run = rerouted()
    fail(run, 1, "swap~alt.cheap")
    return run


def cut_off() -> Run:
    """Cancelled while a person is asked."""
    run = asked()
    run.now += timedelta(seconds=5)
    run.cancel()
    return run


def without_time() -> Run:
    """The first failure uses up what all may take together; for the second nothing is tried."""
    retry = [{"kind": "retry", "attempts": 1, "base_delay_ms": 0}]
    steps = {"a": step("b", recovery=retry, critical=False), "b": step(recovery=retry)}
    run = Run(workflow(steps), recovery={"total_budget_ms": 1_000})
    run.go()
    fail(run, 0, "a")
    run.go()
    fail(run, 1, "a")
    run.go()
    fail(run, 0, "b")
    return run


def not_needed() -> Run:
    """A branch recovers while another one satisfies the join; a second attempt recovers again."""
    steps = {
        "split": fork({"left": ["p"], "right": ["q"]}, "both", "any"),
        "p": step(recovery=[{"kind": "ask"}]),
        "q": step(),
        "both": parallel(["r", "s"]),
        "r": step(recovery=[{"kind": "retry", "attempts": 1, "base_delay_ms": 10}]),
        "s": step(),
    }
    run = Run(workflow(steps))
    run.go()
    fail(run, 1, "split/left/p")
    run.succeed("split/right/q")
    run.go()
    fail(run, 0, "both/r")
    run.cancel()
    run.retry()
    run.go()
    fail(run, 0, "both/r")
    return run.succeed_all()


def settled_by_hand(verb: str) -> Run:
    """An operator ends the step while a person is asked about it."""
    run = asked()
    run.settle_by_hand(verb, "swap", {"by": "hand"} if verb == "complete" else None)
    run.go()
    return run.succeed_all()


def all_of_them() -> Iterator[Run]:
    """Every story of this file."""
    yield recovered_by_retry()
    yield recovered_by_alternative()
    yield recovered_by_answer()
    yield recovered_by_answer("alternative:cheap", "swap~alt.cheap")
    yield from (given_up(answer) for answer in ("skip", "abort", None))
    yield failed_for_good()
    yield cut_off()
    yield without_time()
    yield not_needed()
    yield rerouted()
    yield asked()
    yield settled_by_hand("skip")
    yield settled_by_hand("complete")


def attempts_of(run: Run) -> list[RecoveryAttempt]:
    """Every recovery attempt of a run in order of its start, as the events tell it."""
    under_way: Recoveries = {}
    found: dict[int, RecoveryAttempt] = {}
    state: ExecutionState | None = None
    for event in run.events:
        before, state = state, evolve(state, event)
        if before is not None:
            for move in attempt_moves(under_way, before, event, state):
                assert move.before == found.get(move.after.started_version)
                found[move.after.started_version] = move.after
    return [found[version] for version in sorted(found)]
