"""The page of the two state machines, and their diagrams inside other pages."""

import re
from collections.abc import Iterator
from typing import Final, Literal

from application.lifecycle_diagram import lifecycle_mermaid
from domain.lifecycle import EXECUTION_TABLE, STATUSES, STEP_STATUSES, STEP_TABLE, Edge, Table
from domain.verbs import TRIGGERS
from tools.markdown import table

_PLACE: Final = re.compile(
    r"(<!-- diagram: (execution|step) -->\n).*?(<!-- end of diagram -->)", re.DOTALL
)
_INTRODUCTION: Final = """# Lifecycle tables

What may follow what, as `domain/lifecycle.py` declares it and every decision asks it.
[The explanation](../explanation/lifecycle.md) says what the states mean. A state after a dot is a
part of the one before it; the status people see is the part before the dot. Where two rows have the
same state and trigger, the first whose guard holds counts.
"""


def lifecycle_page() -> str:
    """The page."""
    verbs = " and ".join(f"`{verb}`" for verb in TRIGGERS)
    return "\n".join(
        (
            _INTRODUCTION,
            "## Execution\n",
            f"Statuses: {_listed(STATUSES)}.",
            f"Callers pull {verbs}; the engine pulls the others.\n",
            _diagram("execution"),
            _edges(EXECUTION_TABLE),
            "## Step\n",
            f"Statuses: {_listed(STEP_STATUSES)}.\n",
            _diagram("step"),
            _edges(STEP_TABLE),
        )
    )


def with_diagrams(text: str) -> str:
    """A page with the diagrams between its `<!-- diagram: ... -->` marks made anew."""

    def made(found: re.Match[str]) -> str:
        machine: Literal["execution", "step"] = "execution" if found[2] == "execution" else "step"
        return f"{found[1]}{_diagram(machine)}{found[3]}"

    return _PLACE.sub(made, text)


def _diagram(machine: Literal["execution", "step"]) -> str:
    return f"```mermaid\n{lifecycle_mermaid(machine).strip()}\n```\n"


def _edges(machine: Table) -> str:
    return table(("state", "trigger", "leads to", "guard"), _rows(machine))


def _rows(machine: Table) -> Iterator[tuple[str, str, str, str]]:
    for (state, trigger), edges in machine.items():
        for edge in edges:
            yield f"`{state}`", trigger, f"`{edge.dest}`", _guard(edge)


def _guard(edge: Edge) -> str:
    return ", ".join(name if wanted else f"not {name}" for name, wanted in edge.guards)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
