"""The two machines and the tables made from them say the same, and their names are pinned."""

from itertools import product, starmap
from typing import NamedTuple

import pytest
from transitions import MachineError
from transitions.core import EventData

from domain.lifecycle import (
    CANCELLED,
    CANCELLING,
    COMPENSATING,
    COMPLETED,
    EXECUTING,
    EXECUTION_TABLE,
    FAILED,
    PAUSED,
    PENDING,
    RETRYING,
    RUNNING,
    SKIPPED,
    STATUSES,
    STEP_ENDED,
    STEP_STATUSES,
    STEP_TABLE,
    TERMINAL,
    LifecycleMachine,
    Table,
    execution_machine,
    follow,
    status_of,
    step_machine,
)

BOTH = [
    pytest.param(execution_machine(), EXECUTION_TABLE, id="execution"),
    pytest.param(step_machine(), STEP_TABLE, id="step"),
]


class Subject:
    """A model for the library's machine, with the facts that guards ask for."""

    state: str

    def __init__(self, facts: "Facts") -> None:
        self.facts = facts

    def compensations_due(self, event: EventData | None = None) -> bool:
        return self.facts.compensations_due

    def has_begun(self, event: EventData | None = None) -> bool:
        return self.facts.has_begun


class Facts(NamedTuple):
    compensations_due: bool
    has_begun: bool = True


def machine_says(machine: LifecycleMachine, state: str, trigger: str, facts: Facts) -> str | None:
    subject = Subject(facts)
    machine.add_model(subject, initial=state)
    try:
        moved = subject.trigger(trigger)  # type: ignore[attr-defined]  # added by the library
    except MachineError:
        return None
    finally:
        machine.remove_model(subject)
    return subject.state if moved else None


def leaves(machine: LifecycleMachine) -> list[str]:
    return [name for name in machine.get_nested_state_names() if not machine.get_state(name).states]


@pytest.mark.parametrize(("machine", "table"), BOTH)
def test_machine_and_table_agree_on_every_state_trigger_and_guard(
    machine: LifecycleMachine, table: Table
) -> None:
    facts = list(starmap(Facts, product((True, False), repeat=2)))
    cases = list(product(leaves(machine), machine.events, facts))
    assert len(cases) >= 8 * 7 * 4 - 2
    wrong = [
        (state, trigger, known)
        for state, trigger, known in cases
        if follow(table, state, trigger, known) != machine_says(machine, state, trigger, known)
    ]
    assert wrong == []


def test_the_table_finds_a_difference_when_there_is_one() -> None:
    """Control: the comparison above is able to fail."""
    machine = execution_machine()
    machine.add_transition("complete", PAUSED, COMPLETED)
    assert machine_says(machine, PAUSED, "complete", Facts(False)) == COMPLETED
    assert follow(EXECUTION_TABLE, PAUSED, "complete", Facts(False)) is None


def test_names_are_pinned() -> None:
    """They are stored, shown, and written in SQL by others."""
    assert leaves(execution_machine()) == [
        "PENDING",
        "RUNNING.executing",
        "RUNNING.paused",
        "RUNNING.cancelling",
        "RUNNING.compensating",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
    ]
    assert leaves(step_machine()) == [
        "PENDING",
        "RUNNING",
        "RECOVERING.retrying",
        "RECOVERING.rerouted",
        "RECOVERING.awaiting_answer",
        "COMPLETED",
        "FAILED",
        "SKIPPED",
        "CANCELLED",
    ]
    assert STATUSES == ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")
    assert sorted(execution_machine().events) == [
        *("cancel", "compensated", "complete", "fail", "pause", "resume", "retry", "start")
    ]
    assert sorted(step_machine().events) == [
        *("ask", "cancel", "complete", "complete_by_hand", "exhaust", "fail", "reroute", "reset"),
        *("schedule_retry", "skip", "skip_by_hand", "start"),
    ]


def test_statuses_are_the_parts_before_the_dot() -> None:
    assert {status_of(leaf) for leaf in leaves(execution_machine())} == set(STATUSES)
    assert {status_of(leaf) for leaf in leaves(step_machine())} == set(STEP_STATUSES)
    assert status_of(RETRYING) == "RECOVERING"


def test_only_retry_leads_out_of_a_terminal_state() -> None:
    for state in TERMINAL:
        out = set(triggers_from(EXECUTION_TABLE, state))
        assert out == (set() if state == COMPLETED else {"retry"})


def test_a_step_leaves_its_end_by_recovery_or_reset_only() -> None:
    out = {state: set(triggers_from(STEP_TABLE, state)) for state in STEP_ENDED}
    assert out == {
        COMPLETED: {"reset"},
        FAILED: {"reset", "schedule_retry", "reroute", "ask", "exhaust"},
        SKIPPED: {"reset"},
        CANCELLED: {"reset"},
    }
    assert follow(STEP_TABLE, RETRYING, "start") == RUNNING


def test_guards_decide_between_two_ways() -> None:
    assert follow(EXECUTION_TABLE, EXECUTING, "cancel", Facts(True)) == CANCELLING
    assert follow(EXECUTION_TABLE, EXECUTING, "cancel", Facts(False)) == CANCELLED
    assert follow(EXECUTION_TABLE, EXECUTING, "fail", Facts(True)) == COMPENSATING
    assert follow(EXECUTION_TABLE, PAUSED, "fail", Facts(True)) == COMPENSATING
    assert follow(EXECUTION_TABLE, PAUSED, "resume", Facts(False)) == EXECUTING
    assert follow(EXECUTION_TABLE, PAUSED, "resume", Facts(False, has_begun=False)) == PENDING
    assert follow(EXECUTION_TABLE, PENDING, "start") == EXECUTING
    assert follow(EXECUTION_TABLE, CANCELLING, "complete", Facts(False)) is None


def triggers_from(table: Table, state: str) -> tuple[str, ...]:
    """Triggers the machine allows from `state`, whatever their guards say."""
    return tuple(trigger for source, trigger in table if source == state)
