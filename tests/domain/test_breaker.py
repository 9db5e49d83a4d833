"""The circuit breaker: its machine, the scenario of seven steps, and whatever else may happen."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs

from application.lifecycle_diagram import lifecycle_mermaid
from domain.breaker import (
    BREAKER_STATES,
    BREAKER_TABLE,
    CALLS_MAX,
    CLOSED,
    DEFAULT_SETTINGS,
    HALF_OPEN,
    OPEN,
    Admitted,
    Breaker,
    BreakerSettings,
    CallResult,
    Refused,
    admit,
    breaker_machine,
    next_call_at,
    read_breaker_settings,
    record,
)
from domain.lifecycle import follow
from domain.mistakes import Mistake

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT = timedelta(seconds=30)
IN_A_ROW = BreakerSettings(failure_rate_threshold=1.0)
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "agents.md"


class Calls:
    """Calls to one agent, one after the other, on a clock that tests set."""

    def __init__(self, settings: BreakerSettings = DEFAULT_SETTINGS) -> None:
        self.settings = settings
        self.breaker = Breaker()
        self.now = START

    def begin(self) -> Admitted | Refused:
        decision, self.breaker = admit(self.breaker, self.settings, self.now, LIMIT)
        return decision

    def end(self, call: Admitted, result: CallResult) -> str:
        self.breaker = record(self.breaker, self.settings, call, result, self.now)
        return self.breaker.state

    def call(self, result: CallResult) -> str:
        """A whole call; the state after it, or `refused`."""
        call = self.begin()
        return "refused" if isinstance(call, Refused) else self.end(call, result)

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


# ---------------------------------------------------------------------------------- the machine


def test_the_machine_and_its_table_say_the_same() -> None:
    said = {
        (state, trigger): str(event.transitions[state][0].dest)
        for trigger, event in breaker_machine().events.items()
        for state in BREAKER_STATES
        if event.transitions.get(state)
    }
    assert said == {key: edges[0].dest for key, edges in BREAKER_TABLE.items()}
    assert said == {
        (CLOSED, "trip"): OPEN,
        (OPEN, "probe"): HALF_OPEN,
        (HALF_OPEN, "probe_failed"): OPEN,
        (HALF_OPEN, "probes_succeeded"): CLOSED,
    }
    assert follow(BREAKER_TABLE, OPEN, "probes_succeeded") is None


def test_the_page_shows_the_machine() -> None:
    shown = re.findall(r"```mermaid\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert lifecycle_mermaid("breaker") in shown


# --------------------------------------------------------------------- the scenario, step by step

FAILURES = IN_A_ROW.failure_threshold
PROBES = IN_A_ROW.half_open_max_calls
Told = list[tuple[CallResult, str]]
SEVEN_STEPS: list[tuple[str, float, Told]] = [
    ("it begins closed", 0, [("success", CLOSED)]),
    ("three successes leave it closed", 0, [("success", CLOSED)] * 3),
    (
        "so many failures in a row open it",
        0,
        [*[("failure", CLOSED)] * (FAILURES - 1), ("failure", OPEN)],
    ),
    ("then every call is refused at once", 59.999, [("success", "refused")] * 10),
    ("after the time-out the first call is a probe", 0.001, [("success", HALF_OPEN)]),
    (
        "enough successes close it",
        0,
        [*[("success", HALF_OPEN)] * (PROBES - 2), ("success", CLOSED), ("success", CLOSED)],
    ),
    (
        "(it is opened once more)",
        0,
        [*[("failure", CLOSED)] * (FAILURES - 1), ("failure", OPEN)],
    ),
    ("a probe that fails opens it again", 60, [("success", HALF_OPEN), ("failure", OPEN)]),
    ("for as long as before", 59.999, [("success", "refused")]),
    ("and no longer", 0.001, [("success", HALF_OPEN)]),
]


def test_the_scenario_of_seven_steps() -> None:
    calls = Calls(IN_A_ROW)
    for step, seconds, told in SEVEN_STEPS:
        calls.wait(seconds)
        assert [calls.call(result) for result, _ in told] == [state for _, state in told], step


# ------------------------------------------------------------------------------------ when it opens


def test_a_success_ends_a_row_of_failures() -> None:
    calls = Calls(IN_A_ROW)
    for _ in range(20):
        assert [calls.call("failure") for _ in range(FAILURES - 1)] == [CLOSED] * (FAILURES - 1)
        assert calls.call("success") == CLOSED


def test_a_rate_of_failures_opens_it_once_there_were_enough_calls() -> None:
    calls = Calls()
    told: list[CallResult] = ["failure", "success", "failure", "success", "failure"]
    assert [calls.call(result) for result in told] == [CLOSED] * 4 + [OPEN]
    assert calls.breaker.cause == "3 of 5 calls failed within 120 s"


def test_calls_outside_the_window_count_no_more() -> None:
    calls = Calls()
    for _ in range(4):
        calls.call("failure")
    calls.call("success")  # ends the row; with 5 of 6 the next failure would open it
    calls.wait(130)
    assert [calls.call("failure") for _ in range(2)] == [CLOSED, CLOSED]
    assert sum(part.calls for part in calls.breaker.window) == 2


def test_a_window_has_a_bounded_number_of_parts() -> None:
    calls = Calls()
    for _ in range(1_000):
        calls.call("success")
        calls.wait(1.7)
    assert len(calls.breaker.window) <= 13


def test_many_results_at_once_are_as_good_as_one_by_one() -> None:
    one_by_one, at_once = Calls(), Calls()
    call = Admitted(0)
    for _ in range(7):
        one_by_one.end(call, "success")
    at_once.breaker = record(at_once.breaker, DEFAULT_SETTINGS, call, "success", START, calls=7)
    assert one_by_one.breaker == at_once.breaker


# ------------------------------------------------------------------------------------ half-open


def opened(calls: Calls) -> Calls:
    """Them, with a breaker that has been open for its time-out."""
    for _ in range(calls.settings.failure_threshold):
        calls.call("failure")
    assert calls.breaker.state == OPEN
    calls.wait(calls.settings.timeout_seconds)
    return calls


def test_no_more_probes_at_once_than_allowed_and_what_they_tell_counts_once() -> None:
    calls = opened(Calls())
    probes = [calls.begin() for _ in range(PROBES)]
    assert all(isinstance(probe, Admitted) for probe in probes)
    assert calls.begin() == Refused(calls.now + LIMIT)
    assert isinstance(probes[0], Admitted)
    assert calls.end(probes[0], "success") == HALF_OPEN
    assert calls.end(probes[0], "success") == HALF_OPEN
    assert calls.breaker.probes_succeeded == 1
    assert calls.begin() == Refused(calls.now + LIMIT), "its place is taken by its success"


def test_a_probe_that_told_nothing_gives_its_place_back() -> None:
    calls = opened(Calls())
    probes = [calls.begin() for _ in range(PROBES)]
    assert isinstance(probes[1], Admitted)
    assert calls.end(probes[1], "neither") == HALF_OPEN
    assert isinstance(calls.begin(), Admitted)
    assert isinstance(calls.begin(), Refused)


def test_a_lost_probe_gives_its_place_back_when_its_time_is_over() -> None:
    calls = opened(Calls())
    lost = [calls.begin() for _ in range(PROBES)]
    calls.wait(LIMIT.total_seconds())
    later = calls.begin()
    assert isinstance(later, Admitted)
    assert isinstance(lost[0], Admitted)
    assert calls.end(lost[0], "failure") == HALF_OPEN, "it was taken for lost"
    assert calls.end(later, "failure") == OPEN


@pytest.mark.parametrize("under_way", [0, 1])
def test_it_closes_when_the_probes_that_succeeded_are_made_to_be_enough(under_way: int) -> None:
    calls = opened(Calls())
    assert [calls.call("success") for _ in range(2)] == [HALF_OPEN] * 2
    others = [calls.begin() for _ in range(under_way)]
    calls.settings = structs.replace(calls.settings, half_open_max_calls=2)
    assert calls.call("success") == CLOSED
    for other in others:
        assert isinstance(other, Admitted)
        assert calls.end(other, "failure") == CLOSED, "it is of an earlier round"


def test_a_call_that_began_before_a_change_of_state_says_nothing_after_it() -> None:
    calls = Calls()
    late = calls.begin()
    assert isinstance(late, Admitted)
    opened(calls)
    probe = calls.begin()
    assert isinstance(probe, Admitted)
    before = calls.breaker
    assert calls.end(late, "failure") == HALF_OPEN
    assert calls.end(late, "success") == HALF_OPEN
    assert calls.breaker is before
    for _ in range(PROBES):
        calls.end(probe, "success")
        probe = calls.begin()
        assert isinstance(probe, Admitted)
    closed = calls.breaker
    assert closed.state == CLOSED
    for _ in range(20):
        assert calls.end(late, "failure") == CLOSED
    assert calls.breaker is closed


def test_a_probe_of_an_earlier_round_is_not_taken_for_one_of_this() -> None:
    calls = opened(Calls())
    first, late = calls.begin(), calls.begin()
    assert isinstance(first, Admitted)
    assert isinstance(late, Admitted)
    assert calls.end(first, "failure") == OPEN
    calls.wait(60)
    now = [calls.begin(), calls.begin()]
    assert now == [Admitted(late.round + 2, first.probe), Admitted(late.round + 2, late.probe)]
    before = calls.breaker
    assert calls.end(late, "failure") == HALF_OPEN
    assert calls.breaker is before


# ------------------------------------------------------------------------- settings and storage


def test_settings_are_the_defaults_under_what_is_given() -> None:
    mistakes: list[Mistake] = []
    assert read_breaker_settings(None, "", mistakes) == DEFAULT_SETTINGS
    assert (
        BreakerSettings(
            failure_threshold=5,
            failure_rate_threshold=0.5,
            window_size_seconds=120,
            timeout_seconds=60,
            half_open_max_calls=3,
        )
        == DEFAULT_SETTINGS
    )
    given = {"failure_threshold": 2, "timeout_seconds": 1.5, "half_open_max_calls": None}
    found = read_breaker_settings(given, "", mistakes)
    assert found == BreakerSettings(failure_threshold=2, timeout_seconds=1.5)
    assert mistakes == []


@pytest.mark.parametrize(
    ("given", "pointer", "code"),
    [
        ([], "/c", "not_an_object"),
        ({"failure_threshold": 0}, "/c/failure_threshold", "out_of_range"),
        ({"failure_threshold": CALLS_MAX + 1}, "/c/failure_threshold", "out_of_range"),
        ({"failure_threshold": True}, "/c/failure_threshold", "bad_value"),
        ({"failure_rate_threshold": 1.5}, "/c/failure_rate_threshold", "out_of_range"),
        ({"timeout_seconds": "60"}, "/c/timeout_seconds", "bad_value"),
        ({"treshold": 1}, "/c/treshold", "unknown_field"),
    ],
)
def test_mistakes_in_settings_are_told_with_their_place(
    given: Any, pointer: str, code: str
) -> None:
    mistakes: list[Mistake] = []
    read_breaker_settings(given, "/c", mistakes)
    assert [(mistake.pointer, mistake.code) for mistake in mistakes] == [(pointer, code)]


# --------------------------------------------------------------------------- whatever may happen


class BreakerMachine(RuleBasedStateMachine):
    """Many callers, late results, lost callers; a model counts what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls()
        self.under_way: list[tuple[Admitted, datetime]] = []
        self.ended_of_round: Counter[int] = Counter()

    @initialize(threshold=st.integers(1, 6), probes=st.integers(1, 4), rate=st.floats(0.1, 1))
    def choose(self, threshold: int, probes: int, rate: float) -> None:
        self.calls.settings = BreakerSettings(
            failure_threshold=threshold, failure_rate_threshold=rate, half_open_max_calls=probes
        )

    @rule()
    def begin(self) -> None:
        before = self.calls.breaker
        decision = self.calls.begin()
        if isinstance(decision, Refused):
            assert self.calls.breaker is before
            assert before.state != CLOSED
            return
        assert decision.round == self.calls.breaker.round
        assert bool(decision.probe) is (self.calls.breaker.state == HALF_OPEN)
        if before.state == OPEN:
            due = next_call_at(before, self.calls.settings)
            assert due is not None
            assert self.calls.now >= due
        self.under_way.append((decision, self.calls.now + LIMIT))

    @rule(data=st.data(), result=st.sampled_from(["success", "failure", "neither"]))
    def end(self, data: st.DataObject, result: CallResult) -> None:
        if not self.under_way:
            return
        index = data.draw(st.integers(0, len(self.under_way) - 1))
        call, _ = self.under_way.pop(index)
        before = self.calls.breaker
        after = self.calls.end(call, result)
        if call.round != before.round:
            assert self.calls.breaker is before
        elif before.state == HALF_OPEN and self.calls.breaker is not before:
            assert (after == OPEN) is (result == "failure")
            self.ended_of_round[call.round] += result == "success"
            enough = self.ended_of_round[call.round] == self.calls.settings.half_open_max_calls
            assert (after == CLOSED) is enough
        elif before.state == CLOSED:
            assert after in (CLOSED, OPEN)
            assert after == CLOSED or result == "failure"

    @rule()
    def lose_a_caller(self) -> None:
        self.under_way = self.under_way[1:]

    @rule(seconds=st.floats(0.001, 90))
    def wait(self, seconds: float) -> None:
        self.calls.wait(seconds)

    @invariant()
    def no_more_probes_than_allowed(self) -> None:
        breaker = self.calls.breaker
        alive = [
            call
            for call, until in self.under_way
            if call.probe and call.round == breaker.round and until > self.calls.now
        ]
        allowed = self.calls.settings.half_open_max_calls
        assert len(alive) + breaker.probes_succeeded <= allowed
        assert breaker.state == HALF_OPEN or not breaker.probes

    @invariant()
    def it_can_be_stored(self) -> None:
        breaker = self.calls.breaker
        assert msgspec.json.decode(msgspec.json.encode(breaker), type=Breaker) == breaker

    def teardown(self) -> None:
        """An agent that works again is called again, whatever happened before."""
        self.calls.wait(10_000)
        for _ in range(self.calls.settings.half_open_max_calls):
            self.calls.call("success")
        assert self.calls.breaker.state == CLOSED


TestBreakerMachine = BreakerMachine.TestCase
