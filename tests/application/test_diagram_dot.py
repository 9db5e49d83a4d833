"""DOT text: drawn by Graphviz, whatever the names hold."""

from hypothesis import given, settings
from hypothesis import strategies as st

from application.diagram import graph_of
from application.diagram_dot import dot_of, quoted
from infrastructure.graphviz_svg import GraphvizSvg
from tests.application.diagram_flows import action, branching, defined, waiting_for_person

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


def test_texts_are_always_quoted() -> None:
    assert quoted('a "b" \\N &lt;') == '"a \\"b\\" \\\\N &amp;lt;"'
    assert quoted("<b>x</b>") == '"<b>x</b>"'


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
