"""What the CLI writes: results on stdout, progress and errors on stderr.

Texts that come from users are shown as they are: no markup is read in them, and control characters
are made visible, so that no name can move the cursor or colour the screen.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported when something is drawn, not for --help
    from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 160
_STYLES = {
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    "RUNNING": "cyan",
    "PENDING": "blue",
}


def write_json(value: Any) -> None:
    """A result for a script."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_line(text: str = "") -> None:
    """One line of a result, at once also through a pipe."""
    sys.stdout.write(visible(text, "\n") + "\n")
    sys.stdout.flush()


def write_error(text: str) -> None:
    """For people, on stderr."""
    sys.stderr.write(visible(text, "\n") + "\n")
    sys.stderr.flush()


def visible(value: object, allowed: str = "") -> str:
    """Text with every control character but `allowed` written as an escape."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in allowed else repr(each)[1:-1] for each in text
    )


def console(*, stderr: bool = False) -> "Console":
    """Where tables and bars are drawn; wide when nobody looks, so that scripts get whole lines."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their column names; cells that are a status are coloured."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        texts = [visible(cell) for cell in row]
        table.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in texts))
    screen = console()
    with screen.capture() as drawn:
        screen.print(table)
    # Cells are padded to the column's width, which only a terminal with colours needs.
    sys.stdout.write(
        "\n".join(line.rstrip() for line in drawn.get().splitlines()).strip("\n") + "\n"
    )
    sys.stdout.flush()


def write_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line; empty values are left out."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value not in (None, "", {}, []):
            write_line(f"{name.ljust(width)}  {_field_text(value)}")


def _field_text(value: object) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return visible(value)


@contextmanager
def progress_bar(title: str, *, silent: bool) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to call with (done, of how many); a bar on a terminal, else nothing."""
    if silent or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import Progress

    with Progress(console=console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=max(total, 1))


def short_time(value: object) -> str:
    """`2026-11-20T10:11:12.345678Z` as `2026-11-20 10:11:12.345Z`."""
    text = str(value or "")
    day, _, time = text.partition("T")
    if not time:
        return text
    seconds, _, fraction = time.removesuffix("Z").partition(".")
    return f"{day} {seconds}.{fraction[:3].ljust(3, '0')}Z"


def short_duration(milliseconds: object) -> str:
    """Milliseconds as `12 ms`, `3.4 s` or `2 min 5 s`."""
    if not isinstance(milliseconds, int | float):
        return ""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
