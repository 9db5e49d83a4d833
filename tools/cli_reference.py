"""Write `docs/reference/cli.md` from the commands themselves.

    python -m tools.cli_reference

`tests/interfaces/test_cli_reference.py` fails when the file is not what this writes.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from interfaces.cli import app
from interfaces.cli_failures import ExitCode

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
_INTRODUCTION = """# The command line

Made by `python -m tools.cli_reference` from the commands themselves.

Every command that talks to Flowledger does so over its REST interface: with `--url` to that
server, without it to the embedded file, for which the same application, worker included, is
started inside the command. `--json` prints what the REST interface answered. Results go to stdout;
progress, warnings and errors go to stderr. How to use it: [how-to](../how-to/use-the-cli.md).
"""


def page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, "## Exit codes\n", *_exit_codes(), ""]
    for name, command in _commands(typer.main.get_command(app), "flowledger"):
        parts += _section(name, command)
    return "\n".join(parts).rstrip() + "\n"


def _exit_codes() -> Iterator[str]:
    texts = _texts_of_exit_codes()
    yield "| code | meaning |"
    yield "| --- | --- |"
    for code in ExitCode:
        yield f"| {code.value} | {texts[code.name]} |"


def _texts_of_exit_codes() -> dict[str, str]:
    """The text under each member, read from the source, as Python keeps none at run time."""
    texts, last = {}, ""
    for line in inspect.getsource(ExitCode).splitlines():
        text = line.strip()
        if " = " in text:
            last = text.partition(" = ")[0]
        elif text.startswith('"""') and last:
            texts[last] = text.strip('"')
    return texts


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:  # typer's own classes
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child_name, child in children.items():
        yield from _commands(child, f"{name} {child_name}")


def _section(name: str, command: Any) -> Iterator[str]:  # typer's own class
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = " ".join([name, *(each.metavar or each.name.upper() for each in arguments)])
    yield f"## `{usage}`\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    rows = [
        *((f"`{each.metavar or each.name.upper()}`", each.help) for each in arguments),
        *((_option(each), each.help) for each in options if each.name != "help"),
    ]
    if rows:
        yield "| argument or option | meaning |"
        yield "| --- | --- |"
        for left, text in rows:
            yield f"| {left} | {_cell(text)} |"
        yield ""


def _option(option: Any) -> str:  # typer's own class
    name = ", ".join(option.opts)
    if option.is_flag:
        return f"`{name}`"
    return f"`{name} {option.metavar or option.name.upper()}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), "utf-8")
