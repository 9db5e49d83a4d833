"""DOT text: drawn by Graphviz, whatever the names hold."""

from hypothesis import given, settings
from hypothesis import strategies as st

from application.diagram import graph_of
from application.diagram_dot import dot_of, quoted
from infrastructure.graphviz_svg import GraphvizSvg
from tests.application.diagram_flows import (
    action,
    branching,
    defined,
    named_asides,
    undoable,
    undoing,
    waiting_for_person,
)

DRAW = GraphvizSvg()


def hostile(names: list[str]) -> str:
    ids = [f"{name}{number}" for number, name in enumerate(names)]
    steps = [
        action(step_id, after, action=name)
        for step_id, after, name in zip(ids, [*ids[1:], None], names, strict=True)
    ]
    return dot_of(graph_of(defined(names[0], steps)))


def test_a_road_not_taken_is_dashed_and_says_so() -> None:
    text = dot_of(graph_of(branching(), waiting_for_person().state))
    assert '  s2 -> s4 [color="#9e9e9e", style="dashed", label="   else (not taken)   "];' in text
    assert 'label="ask_boss\\ncreate_task · waiting for a person"' in text


def test_what_stands_aside_of_a_step_stands_beside_it() -> None:
    text = dot_of(graph_of(undoable(), undoing().state))
    assert "  s1 -> s1u [" in text
    assert "  s2 -> s2a1 [" in text
    assert '  s2u -> s2 [color="#263238", penwidth="2", style="dashed", label=' in text
    assert "  { rank=same; s2; s2a1; s2u; }\n" in text
    assert "undone by" in DRAW(text)


def test_texts_are_always_quoted() -> None:
    assert quoted('a "b" \\N &lt;') == '"a \\"b\\" \\\\N &amp;lt;"'
    assert quoted("<b>x</b>") == '"<b>x</b>"'


def test_names_of_asides_stay_text_too() -> None:
    flow, state = named_asides('<<B>x</B>>"]; evil [URL="javascript:alert(1)"')
    for shown, times in ((None, 1), (state, 3)):
        svg = DRAW(dot_of(graph_of(flow, shown)))
        assert "<a " not in svg
        assert "xlink:href" not in svg
        assert svg.count("javascript:alert(1)") == times


def test_markup_stays_text() -> None:
    names = ['<<TABLE HREF="javascript:alert(1)"><TR><TD>x</TD></TR></TABLE>>']
    names += [
        '"]; evil [URL="javascript:alert(1)"',
        "\\N \\G \\l",
        "&lt;b&gt;",
        "x\x00\x1b y",
        "\\",
    ]
    svg = DRAW(hostile(names))
    assert "<a " not in svg
    assert "xlink:href" not in svg
    assert "&lt;&lt;TABLE HREF=" in svg
    assert "\\N \\G \\l" in svg
    assert "&amp;lt;b&amp;gt;" in svg


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=8, max_size=8))
def test_graphviz_draws_any_names(names: list[str]) -> None:
    svg = DRAW(hostile(names))
    assert svg.count('class="node ') == len(names) + 2
    assert svg.count('class="edge"') == len(names) + 1
