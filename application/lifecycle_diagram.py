"""The state machines as Mermaid text, drawn by `transitions` from their declarations."""

from typing import Final, Literal

from transitions.extensions import HierarchicalGraphMachine
from transitions.extensions.diagrams_mermaid import NestedGraph

from domain.breaker import breaker_machine
from domain.lifecycle import DottedState, LifecycleMachine, execution_machine, step_machine


class _Drawn(HierarchicalGraphMachine):
    """The same declaration in the library's class that can draw."""

    state_cls = DottedState


_DECLARED: Final = {
    "execution": (execution_machine, "Life of an execution"),
    "step": (step_machine, "Life of a step"),
    "breaker": (breaker_machine, "Circuit breaker of an agent"),
}


def lifecycle_mermaid(machine: Literal["execution", "step", "breaker"]) -> str:
    """A `stateDiagram-v2` of an execution's, a step's or a breaker's life; guards in brackets."""
    declared, title = _DECLARED[machine]
    text: str = NestedGraph(_drawn(declared())).get_graph(title=title).source
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _drawn(declared: LifecycleMachine) -> _Drawn:
    drawn = _Drawn(
        model=None,
        states=list(declared.states.values()),
        initial=declared.initial,
        auto_transitions=False,
        show_conditions=True,
        graph_engine="mermaid",
    )
    for trigger, event in declared.events.items():
        for moves in event.transitions.values():
            for move in moves:
                drawn.add_transition(
                    trigger,
                    move.source,
                    move.dest,
                    conditions=[guard.func for guard in move.conditions if guard.target],
                    unless=[guard.func for guard in move.conditions if not guard.target],
                )
    return drawn
