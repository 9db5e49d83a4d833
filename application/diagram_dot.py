"""A graph as DOT text for Graphviz, safe whatever the names hold.

Every text is written between double quotes, so that one which looks like `<b>this</b>` is never
taken for Graphviz' HTML-like labels, and no attribute that makes a link (URL, href, tooltip,
target) is ever written.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from application.diagram_graph import END, START, STOP, Edge, Graph, Node
from application.diagram_style import (
    LOOKS,
    details,
    heading,
    look_name,
    stop_text,
    title_of,
)

_FONT: Final = "Helvetica,Arial,sans-serif"
_ROADS: Final[Mapping[str, Mapping[str, str]]] = {
    "plain": {"color": "#37474f"},
    "taken": {"color": "#263238", "penwidth": "2"},
    "pending": {"color": "#9e9e9e"},
    "skipped": {"color": "#9e9e9e", "style": "dashed"},
}


def dot_of(graph: Graph) -> str:
    """The text, one statement per line, with a newline at the end."""
    return "\n".join(_lines(graph)) + "\n"


def quoted(text: str) -> str:
    r"""A quoted DOT string that Graphviz shows as it was given; a newline breaks the line.

    Graphviz reads `\n` escapes and `&lt;` entities even inside quotes, so their first signs go out
    escaped.
    """
    plain = text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + plain.replace("\n", "\\n") + '"'


def _lines(graph: Graph) -> Iterator[str]:
    yield "digraph flow {"
    yield _statement(
        "graph",
        {
            "rankdir": "TB",
            "labelloc": "t",
            "label": title_of(graph) + "\n ",
            "fontname": _FONT,
            "fontsize": "14",
            "nodesep": "0.4",
            "ranksep": "0.4",
            "pad": "0.2",
            "bgcolor": "#ffffff",
        },
    )
    yield _statement("node", {"fontname": _FONT, "fontsize": "12"})
    yield _statement(
        "edge", {"fontname": _FONT, "fontsize": "11", "fontcolor": "#37474f", "arrowsize": "0.8"}
    )
    for node in graph.nodes:
        yield _statement(node.id, _look_of(node))
    beside: dict[str, list[str]] = {}
    for edge in graph.edges:
        road = _road_of(edge)
        if edge.aside:
            beside.setdefault(edge.source, []).append(edge.target)
        if edge.aside and len(beside[edge.source]) == 2:
            yield _statement(f"{edge.target} -> {edge.source}", road | {"dir": "back"})
        else:
            yield _statement(f"{edge.source} -> {edge.target}", road)
    for source, targets in beside.items():
        # One to the right and one to the left; more on one rank would lie on each other's arrows.
        yield f"  {{ rank=same; {'; '.join((source, *targets[:2]))}; }}"
    yield "}"


def _statement(subject: str, attributes: Mapping[str, str]) -> str:
    pairs = ", ".join(f"{name}={quoted(value)}" for name, value in attributes.items())
    return f"  {subject} [{pairs}];"


def _look_of(node: Node) -> dict[str, str]:
    name, text = look_name(node), _text_of(node)
    look = LOOKS[name]
    rounded = node.kind != "conditional"
    styles = ["filled", *(["rounded"] if rounded else []), *(["dashed"] if look.dashed else [])]
    round_ended = node.kind in ("start", "end")
    return {
        "id": node.id,
        "class": name,
        "label": text,
        "shape": "oval" if round_ended else "box" if rounded else "hexagon",
        "style": ",".join(each for each in styles if not (round_ended and each == "rounded")),
        "fillcolor": look.fill,
        "color": look.stroke,
        "fontcolor": look.text,
        "penwidth": str(look.width),
        "margin": "0.02,0.03" if node.kind == "conditional" else "0.2,0.1",
    }


def _text_of(node: Node) -> str:
    if node.id == STOP:
        return stop_text(node)
    if node.id in (START, END):
        return node.name
    return "\n".join((heading(node), *details(node)))


def _road_of(edge: Edge) -> dict[str, str]:
    """A dashed arrow also says in words that it was not taken."""
    road = dict(_ROADS[edge.travel])
    if edge.aside:
        road["style"] = "dashed"
    if edge.label:
        words = f"{edge.label} (not taken)" if edge.travel == "skipped" else edge.label
        road["label"] = f"   {words}   "  # the spaces keep it off the arrow
    return road
