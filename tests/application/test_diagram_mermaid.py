"""Mermaid text: read by the real Mermaid, whatever the names hold."""

import re
from pathlib import Path

import mermaidx  # type: ignore[import-untyped]  # the library ships no types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.diagram import graph_of
from application.diagram_mermaid import mermaid_of
from application.lifecycle_diagram import lifecycle_mermaid
from domain.lifecycle import EXECUTION_TABLE, STEP_TABLE
from tests.application.diagram_flows import (
    EXAMPLES,
    action,
    defined,
    linear,
    named_asides,
    retrying,
)

HOSTILE = [
    '"]--> x',
    "%%{init: {'securityLevel':'loose'}}%%",
    "<script>alert(1)</script>",
    'click s1 "javascript:alert(1)"',
    "a; b : c # d",
    "#quot;#60;",
    "[*] --> [*]",
    "state x {",
    "}",
    "---",
    "note left of s1",
    "<<choice>>",
    ":::completed",
    "end note",
    "line\nbreak\r\n    [*] --> evil",
    "\u202egnp.exe",
    "\\n \\\" ` $ ' & |",
    "العربية 中文 🎉",
    "x" * 500,
    " ",
]


def drawn(text: str) -> str:
    """The SVG that the real Mermaid makes; raises where its parser refuses the text."""
    return str(mermaidx.render(text).svg())


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - {"long"}))
def test_mermaid_reads_each_example(name: str) -> None:
    definition, state = EXAMPLES[name]
    svg = drawn(mermaid_of(graph_of(definition, state)))
    assert definition.name in svg


def test_the_text_shows_name_action_try_and_state() -> None:
    text = mermaid_of(graph_of(linear(), retrying().state))
    assert text.startswith('---\ntitle: "import-orders v3 · RUNNING"\n---\nstateDiagram-v2\n')
    assert '    state "load" as s4\n    s4 : call_api · try 2 · retrying<br/>next try at' in text
    assert "    class s4 recovering\n" in text
    assert "    [*] --> s1\n" in text


def with_hostile(names: list[str]) -> str:
    """One flow whose step ids and actions are texts that no validator would let pass."""
    ids = [f"{name}{number}" for number, name in enumerate(names)]
    following = [*ids[1:], None]
    steps = [
        action(step_id, after, action=name)
        for step_id, after, name in zip(ids, following, names, strict=True)
    ]
    return mermaid_of(graph_of(defined(names[0], steps)))


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    text = with_hostile(HOSTILE)
    svg = drawn(text)
    assert "<script" not in svg
    assert 'href="' not in svg
    assert text.count(" --> ") == len(HOSTILE) + 1
    assert "evil" in text
    assert "\n    [*] --> evil" not in text


@pytest.mark.parametrize("name", ["]--> x", "%%{init: {}}%%", '"; [*] --> evil', "<script>x"])
def test_hostile_names_of_asides_are_not_obeyed(name: str) -> None:
    flow, state = named_asides(name)
    for shown, arrows in ((None, 4), (state, 5)):
        text = mermaid_of(graph_of(flow, shown))
        assert text.count(" --> ") == arrows
        assert "<script" not in drawn(text)


@settings(max_examples=4, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=10, max_size=10))
def test_mermaid_reads_any_names(names: list[str]) -> None:
    text = with_hostile(names)
    assert "<svg" in drawn(text)


def test_both_machines_are_drawn_with_every_trigger() -> None:
    for machine, table in (("execution", EXECUTION_TABLE), ("step", STEP_TABLE)):
        text = lifecycle_mermaid("execution" if machine == "execution" else "step")
        assert "<svg" in drawn(text)
        assert {trigger for _, trigger in table} <= set(text.replace(":", " ").split())
    assert "fail [compensations_due]" in lifecycle_mermaid("execution")


_SHOWN = ("retrying", "rerouted", "undoing", "person", "loop", "failed")


def test_the_pictures_of_the_guide_are_what_is_drawn() -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "read-a-diagram.md"
    shown = re.findall(r"```mermaid\n(.*?)```", guide.read_text("utf-8"), flags=re.DOTALL)
    made = [mermaid_of(graph_of(*EXAMPLES[name])) for name in _SHOWN]
    assert shown == [*made, lifecycle_mermaid("execution"), lifecycle_mermaid("step")]
