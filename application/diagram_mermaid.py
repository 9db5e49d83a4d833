"""A graph as Mermaid text (`stateDiagram-v2`), safe whatever the names hold.

Letters, digits and a few harmless marks go out as they are, everything else as Mermaid's own
`#code;`, which its parser never reads as syntax. Ids and classes are ours.
"""

from collections.abc import Iterator
from typing import Final

from application.diagram_graph import END, START, STOP, Edge, Graph, Node
from application.diagram_style import (
    LOOKS,
    Look,
    details,
    heading,
    look_name,
    stop_text,
    title_of,
)

_HARMLESS: Final = frozenset(" ._-/()+,·…")


def mermaid_of(graph: Graph) -> str:
    """The text, lines joined by newlines, with one at the end."""
    return "\n".join(_lines(graph)) + "\n"


def escaped(text: str) -> str:
    """Text that Mermaid shows as it was given."""
    return "".join(
        char if char.isalnum() or char in _HARMLESS else f"#{ord(char)};" for char in text
    )


def _lines(graph: Graph) -> Iterator[str]:
    yield from ("---", f'title: "{_title(graph)}"', "---")
    yield from ("stateDiagram-v2", "    direction TB")
    for node in graph.nodes:
        yield from _node_lines(node)
    for edge in graph.edges:
        yield f"    {_end(edge.source)} --> {_end(edge.target)}{_edge_label(edge)}"
    if any(node.id == STOP for node in graph.nodes):
        yield f"    {STOP} --> [*]"
    boxes = [node for node in graph.nodes if _is_box(node)]
    for name in sorted({look_name(node) for node in boxes}):
        yield f"    classDef {name} {_class_of(LOOKS[name])}"
    for node in boxes:
        yield f"    class {node.id} {look_name(node)}"


def _title(graph: Graph) -> str:
    """Mermaid decodes no `#code;` in a title, so what is not harmless is left out."""
    return "".join(char for char in title_of(graph) if char.isalnum() or char in _HARMLESS)


def _node_lines(node: Node) -> Iterator[str]:
    if not _is_box(node):
        return
    text = stop_text(node) if node.id == STOP else heading(node)
    yield f'    state "{escaped(text)}" as {node.id}'
    lines = [] if node.id == STOP else [escaped(line) for line in details(node)]
    if lines:
        yield f"    {node.id} : {'<br/>'.join(lines)}"


def _is_box(node: Node) -> bool:
    return node.id not in (START, END)


def _end(node_id: str) -> str:
    return "[*]" if node_id in (START, END) else node_id


def _edge_label(edge: Edge) -> str:
    """Mermaid cannot dash one arrow of a state diagram, so a road not taken says so."""
    words = [edge.label] if edge.label else []
    if edge.travel == "skipped" and edge.label:
        words.append("not taken")
    return f" : {escaped(' · '.join(words))}" if words else ""


def _class_of(look: Look) -> str:
    dash = ",stroke-dasharray:5 4" if look.dashed else ""
    return (
        f"fill:{look.fill},stroke:{look.stroke},stroke-width:{look.width}px,color:{look.text}{dash}"
    )
