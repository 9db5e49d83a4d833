"""DOT to SVG by both ways: a `dot` program, and the Graphviz that comes with the install."""

import shutil
import sys
from pathlib import Path
from threading import Thread

import pytest

from application.diagram import DiagramNotRendered, graph_of
from application.diagram_dot import dot_of
from infrastructure import graphviz_svg
from infrastructure.graphviz_svg import DOT_BYTES_MAX, GraphvizSvg
from tests.application.diagram_flows import EXAMPLES, long_line

BUNDLED = GraphvizSvg()


def program(folder: Path, code: str) -> str:
    """A program to put in the place of `dot`."""
    path = folder / "dot"
    path.write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_is_drawn(name: str) -> None:
    svg = BUNDLED(dot_of(graph_of(*EXAMPLES[name])))
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
    assert 'id="s1"' in svg


def test_the_best_program_of_this_machine_draws_too() -> None:
    assert GraphvizSvg.installed()("digraph { a }").startswith("<svg")


def test_the_largest_flow_is_drawn() -> None:
    assert BUNDLED(dot_of(graph_of(long_line(1_000)))).count('class="node ') == 1_002


def test_a_program_on_the_path_is_preferred(tmp_path: Path) -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><title>mine</title></svg>'
    draw = GraphvizSvg(program(tmp_path, f"print('<?xml?>'); print({svg!r})"))
    assert draw("digraph {}").strip() == svg


@pytest.mark.parametrize("code", ["sys.exit('no plug-in for svg')"])
def test_a_program_that_cannot_draw_is_replaced(tmp_path: Path, code: str) -> None:
    assert GraphvizSvg(program(tmp_path, code))("digraph { a }").startswith("<svg")
    assert GraphvizSvg(str(tmp_path / "gone"))("digraph { a }").startswith("<svg")


@pytest.mark.parametrize(
    "inside",
    ["<script/>", '<a href="javascript:alert(1)"/>', '<g onclick="x()"/>', "<image/>", "<g>"],
)
def test_a_drawing_with_more_than_shapes_is_refused(tmp_path: Path, inside: str) -> None:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>'
    draw = GraphvizSvg(program(tmp_path, f"print({svg!r})"))
    with pytest.raises(DiagramNotRendered):
        draw("digraph {}")


def test_a_program_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphviz_svg, "SECONDS_MAX", 0.2)
    draw = GraphvizSvg(program(tmp_path, "import threading; threading.Event().wait()"))
    with pytest.raises(DiagramNotRendered, match="did not end"):
        draw("digraph {}")


def test_work_without_end_is_given_up() -> None:
    draw = GraphvizSvg(instructions_max=1_000_000)
    with pytest.raises(DiagramNotRendered, match="gave up"):
        draw(dot_of(graph_of(long_line(100))))


def test_bad_and_too_large_texts_are_refused() -> None:
    with pytest.raises(DiagramNotRendered, match="refused"):
        BUNDLED("digraph { a -> }")
    with pytest.raises(DiagramNotRendered, match="bytes"):
        BUNDLED("/" * (DOT_BYTES_MAX + 1))
    assert BUNDLED("digraph { a }").startswith("<svg")


def test_several_threads_draw_at_once() -> None:
    fresh, drawings = GraphvizSvg(), []
    text = dot_of(graph_of(long_line(50)))
    threads = [Thread(target=lambda: drawings.append(fresh(text))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawings)) == 1
    assert len(drawings) == 4


def test_the_install_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert shutil.which("dot") is None
    assert GraphvizSvg.installed()("digraph { a }").startswith("<svg")
