"""The samples of a page: files to write, commands to run, and what they print.

A comment right before a fenced block says what it is: `<!-- file NAME -->`, `<!-- walk -->` (shell
commands, run in order in one shell), `<!-- shows COMMAND -->` (exactly what the command prints) or
`<!-- transcript -->` (lines of a longer output, `...` for what is left out).
"""

import re
from pathlib import Path
from typing import NamedTuple

from tests.e2e.programs import ROOT

_SAMPLE = re.compile(
    r"^<!-- (?P<kind>file|walk|shows|transcript)(?: (?P<name>[^\n>]+))? -->\n"
    r"```\w+\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Sample(NamedTuple):
    """One marked block; `name` is the file or the command."""

    kind: str
    name: str
    text: str


def samples(page: str) -> list[Sample]:
    """The marked blocks of a page of this repository, in order."""
    text = (ROOT / page).read_text("utf-8")
    return [
        Sample(each["kind"], each["name"] or "", each["text"]) for each in _SAMPLE.finditer(text)
    ]


def write_files(page: str, folder: Path) -> None:
    """Write the files that a page shows."""
    for sample in samples(page):
        if sample.kind == "file":
            (folder / sample.name).write_text(sample.text)


def walk(page: str) -> str:
    """All commands of a page, as one shell script."""
    return "\n".join(each.text for each in samples(page) if each.kind == "walk")
