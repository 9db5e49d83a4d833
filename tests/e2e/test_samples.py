"""What the README and the docs show is run here, as it is written."""

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.e2e.programs import (
    COMMAND,
    EXAMPLES,
    SECONDS_MAX,
    environment,
    flowledger,
    serving,
)
from tests.e2e.samples import samples, walk, write_files

# curl says nothing of a refusal by itself; a sample must not be refused.
_SHELL = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; echo; }\n'
_CHANGING = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|\d+(?:\.\d+)?")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like a clone: with the examples, and the command on the PATH."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    return tmp_path


def run_in_shell(script: str, folder: Path, more: Mapping[str, str] | None = None) -> str:
    path = f"{COMMAND.parent}:{environment()['PATH']}"
    settings = environment({"PATH": path, **(more or {})})
    done = subprocess.run(
        ["bash", "-c", _SHELL + script],
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_walk_with_curl(folder: Path) -> None:
    with serving(cwd=folder) as server:
        script = walk("README.md").replace("http://127.0.0.1:8000", server.address)
        said = run_in_shell(script, folder)
    for expected in (
        '"said":"Hello, Ada!"',
        '"status":"COMPLETED"',
        '"status":"PENDING"',
        '"topic":"execution.completed.v1"',
        "stateDiagram-v2",
        "greeting       COMPLETED  alice",
    ):
        assert expected in said
    assert "<svg" in (folder / "diagram.svg").read_text()


def test_the_quickstart(folder: Path) -> None:
    write_files("docs/quickstart.md", folder)
    said = run_in_shell(walk("docs/quickstart.md"), folder)
    for expected in ("Good day, dear Ada", "Hi Ada", "HELLO ADA", "greeting       COMPLETED  2"):
        assert expected in said


def test_how_to_use_the_command_line(folder: Path) -> None:
    write_files("docs/quickstart.md", folder)
    page = "docs/how-to/use-the-cli.md"
    write_files(page, folder)
    with serving(cwd=folder) as server:  # the same commands, quicker than each with an engine
        said = run_in_shell(walk(page), folder, {"FLOWLEDGER_URL": server.address})
    assert "All is well." in said
    assert "<svg" in (folder / "greeting.svg").read_text()
    for sample in samples(page):
        if sample.kind == "shows":
            command = sample.text.partition("\n")[0].removeprefix("$ flowledger ").split()
            ended = flowledger(*command, cwd=folder)
            assert f"$ flowledger {' '.join(command)}\n{ended.out}{ended.err}" == sample.text


def test_the_transcript_of_the_demo(folder: Path) -> None:
    (transcript,) = [each for each in samples("README.md") if each.name == "make demo"]
    (command, *shown) = transcript.text.replace(".venv/bin/", "").splitlines()
    ended = flowledger("demo", cwd=folder)
    assert command == "$ make demo"
    compare(_unchanging(shown), _unchanging(ended.out.splitlines()))


def _unchanging(lines: Iterable[str]) -> list[str]:
    return [_CHANGING.sub("#", line.strip()) for line in lines if line.strip()]


def compare(shown: Sequence[str], printed: Sequence[str]) -> None:
    """A transcript has every printed line in its place, but for those that its `...` stand for."""
    place, gap = 0, False
    for line in shown:
        if line == "...":
            gap = True
            continue
        here = printed[place:] if gap else printed[place : place + 1]
        assert line in here, f"{line!r} is shown, and printed is {here[:1]}"
        place, gap = place + here.index(line) + 1, False
    assert gap or place == len(printed), f"{printed[place]!r} is left out without a word"
