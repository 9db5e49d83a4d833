"""What recovery adds by itself, without the waits that were configured, all projections running.

Executions of two steps, of which the second works at once, fails once and is tried again (at once,
or after a wait), or fails once and has an alternative. The kinds take turns, so that all see the
same load. A *gap* is from the end of the call before to the beginning of the next one's effect, the
wait taken off: between the two steps, or between the failed try and what comes after it. All that
is between is in it: the decision, its events in the log, the next try's intent, timers, hand-overs.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, NamedTuple
from uuid import UUID

from application.callers import Caller
from application.requests import ExecuteOptions
from benchmarks.harness import Report, as_served, databases, percentile, read_options
from benchmarks.recovery_actions import CALLS
from domain.decisions import Outcome, Request, request, settle
from domain.definition import compile_definition
from domain.definition_reader import DefinitionReader
from domain.draft import Draft
from domain.events import Meta
from domain.json_values import JsonObject
from domain.planner import advance
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.garbage_collection import tune_process

IN_FLIGHT: Final = (1, 16)
WAIT_MS: Final = 20
DECISION_MS_MAX: Final = 2.0
SWITCH_MS_MAX: Final = 5.0
PLAIN: Final = "no failure"
AT_ONCE: Final = "retry at once"
WAITING: Final = f"retry after {WAIT_MS} ms"
SWITCHED: Final = "alternative"


class Kind(NamedTuple):
    """What happens to the second step."""

    name: str
    step: JsonObject
    wait_ms: int = 0


def _retry(delay_ms: int) -> JsonObject:
    retry: JsonObject = {"attempts": 3, "base_delay_ms": delay_ms, "strategy": "fixed"}
    return {"on_error": "retry", "retry": retry}


KINDS: Final = (
    Kind(PLAIN, {"config": {"fails": False}}),
    Kind(AT_ONCE, _retry(0)),
    Kind(WAITING, _retry(WAIT_MS), WAIT_MS),
    Kind(SWITCHED, {"alternatives": [{"id": "other", "do": {"action": "other"}}]}),
)


def definition(number: int) -> JsonObject:
    """The definition of KINDS[number]."""
    common: JsonObject = {"type": "action", "action": "work"}
    first = {**common, "config": {"fails": False}, "next_step": "second"}
    second = {**common, "config": {"fails": True}, "next_step": None, **KINDS[number].step}
    steps: JsonObject = {"first": first, "second": second}
    return {"name": f"recovery{number}", "start_step": "first", "steps": steps}


class Times(NamedTuple):
    """In ms: of each execution its gap, and from its request to COMPLETED, both less the wait."""

    gaps: list[float]
    executions: list[float]


async def measure(url: str, each: int, in_flight: int) -> dict[str, Times]:
    """`each` executions of every kind, `in_flight` at a time; by the name of the kind."""
    services = await open_services(
        Settings(database_url=url, actions="benchmarks.recovery_actions")
    )
    tune_process()
    for number in range(len(KINDS)):
        await services.workflows.publish(Caller(actor="bench"), definition(number))
    await asyncio.gather(*(_client(services, 10, first, {}) for first in range(in_flight)))
    times = {kind.name: Times([], []) for kind in KINDS}
    share = each // in_flight
    await asyncio.gather(*(_client(services, share, first, times) for first in range(in_flight)))
    await services.close()
    return times


async def _client(services: Services, rounds: int, first: int, times: dict[str, Times]) -> None:
    """`rounds` of all kinds; clients begin with different ones."""
    for turn in range(first, first + rounds * len(KINDS)):
        number = turn % len(KINDS)
        kind, started = KINDS[number], time.perf_counter()
        options = ExecuteOptions(input_data={"rows": 1000})
        answer = await services.requests.execute(
            Caller(actor="bench"), f"recovery{number}", options
        )
        view = await services.history.wait_ended("default", answer.view.id, 60)
        took = (time.perf_counter() - started) * 1000 - kind.wait_ms
        if view.status != "COMPLETED":
            raise RuntimeError(f"{kind.name}: execution {view.id} is {view.status}")
        gap = _gap_ms(view.id, kind)
        if kind.name in times:
            times[kind.name].gaps.append(gap)
            times[kind.name].executions.append(took)


def _gap_ms(execution_id: str, kind: Kind) -> float:
    """Before the last call: the one that recovery made, or the second step's own."""
    calls = CALLS.pop(execution_id)
    if len(calls) != (2 if kind.name == PLAIN else 3):
        raise RuntimeError(f"{kind.name}: calls of {[call.path for call in calls]}")
    before, last = [*pairwise(calls)][-1]
    return (last.began - before.ended) * 1000 - kind.wait_ms


# ------------------------------------------------------------------------------ the decision alone


def decision_us(number: int, repetitions: int) -> float:
    """Microseconds of the pure part of KINDS[number]: from the second step's outcome to all events
    that follow from it.
    """
    normalised = DefinitionReader().read(definition(number))
    if normalised is None:
        raise RuntimeError(f"{KINDS[number].name}: the definition has mistakes")
    compiled = compile_definition(normalised)
    at, execution_id = datetime(2026, 1, 31, tzinfo=UTC), UUID(int=1)
    meta = Meta(at, "bench", "bench")
    wanted = Request(
        workflow_id="wf",
        workflow_name="bench",
        workflow_version=1,
        definition_id=execution_id,
        sha256="0" * 64,
        steps_total=2,
        input={"rows": 1000},
    )
    draft = Draft(request(execution_id, wanted, meta)[0], meta)
    advance(compiled, draft, at)
    settle(draft, compiled, Outcome("first", 1, 1, 1, output={}), at)
    outcome = Outcome("second", 1, 1, 1, output={"rows": 998, "ok": True})
    if KINDS[number].name != PLAIN:
        outcome = Outcome("second", 1, 1, 1, None, "transient", "connection_error", "no answer")
    started = time.perf_counter()
    for _ in range(repetitions):
        if not settle(Draft(draft.state, meta), compiled, outcome, at):
            raise RuntimeError(f"{KINDS[number].name}: the outcome was not taken")
    return (time.perf_counter() - started) / repetitions * 1e6


# --------------------------------------------------------------------------------------- the report


def add(report: Report, row: str, times: dict[str, Times]) -> None:
    """One repetition. `added` is what the failure cost beside an execution without one."""
    plain = times[PLAIN]
    gap, whole = (percentile(values, 0.5) for values in plain)
    for name, (gaps, executions) in times.items():
        figures = {
            "gap_p50_ms": percentile(gaps, 0.5),
            "gap_p99_ms": percentile(gaps, 0.99),
            "execution_p50_ms": percentile(executions, 0.5),
        }
        if name != PLAIN:
            figures["gap_added_p50_ms"] = figures["gap_p50_ms"] - gap
            figures["execution_added_p50_ms"] = figures["execution_p50_ms"] - whole
        report.add(f"{row}, {name}", figures)


def judge(report: Report, row: str, in_flight: int) -> None:
    """The two goals, which hold for what recovery adds; where nothing else waits for the same
    process, for the whole gap too."""
    for name, most in ((AT_ONCE, DECISION_MS_MAX), (SWITCHED, SWITCH_MS_MAX)):
        for figure in ("gap_added_p50_ms", *(["gap_p50_ms"] if in_flight == 1 else [])):
            value = report.median(f"{row}, {name}", figure)
            report.judge(f"{row}, {name}: {figure}", value, most)


def main(arguments: Sequence[str] | None = None) -> Report:
    """Measure on the chosen back ends and print the report."""
    options = read_options(__doc__ or "", arguments)
    report = Report("recovery", options)
    each = 96 if options.quick else 960
    for _ in range(options.repetitions):
        for number, kind in enumerate(KINDS):
            decided = decision_us(number, 500 if options.quick else 5_000)
            report.add("decision alone", {f"{kind.name}, us": decided})
    with databases() as bases:
        for backend in options.backends:
            for in_flight in IN_FLIGHT:
                row = f"{backend}, {in_flight} in flight"
                for _ in range(options.repetitions):
                    times = as_served(measure(bases.fresh(backend), each, in_flight))
                    add(report, row, times)
                judge(report, row, in_flight)
    report.show()
    return report


if __name__ == "__main__":
    main()
