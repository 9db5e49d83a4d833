"""Runs one SQL query on a SQLite ledger file and prints the rows; needs nothing but Python.

    python sql.py flowledger.db "SELECT run_id, workflow_name, status FROM workflow_runs"

The file is opened read-only, also while a server uses it.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

CELL_CHARACTERS_MAX = 60


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print('usage: sql.py FILE "SELECT ..."', file=sys.stderr)
        return 2
    file, query = Path(arguments[0]), arguments[1]
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description or ()]
            rows = [[_cell(value) for value in row] for row in cursor]
    except sqlite3.Error as error:
        print(f"{file}: {error}", file=sys.stderr)
        return 1
    widths = [max(len(row[index]) for row in [names, *rows]) for index in range(len(names))]
    for row in [names, ["-" * width for width in widths], *rows]:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    if len(text) > CELL_CHARACTERS_MAX:
        return text[: CELL_CHARACTERS_MAX - 3] + "..."
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
