"""Writes the generated pages of `docs/reference/` from the code, so that they cannot drift from it.

python -m tools.generate_reference            write the pages
python -m tools.generate_reference --check    name the pages that differ, exit 1 if there are any
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tools.reference_errors import errors_page
from tools.reference_events import events_page
from tools.reference_lifecycle import lifecycle_page, with_diagrams
from tools.reference_limits import limits_page
from tools.reference_metrics import metrics_page
from tools.reference_routes import routes_page
from tools.reference_settings import settings_page
from tools.reference_tables import tables_page
from tools.reference_topics import with_messages

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
_NOTE: Final = "<!-- Made from the code by `make reference`; changes here are lost. -->\n\n"
_PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "reference/settings.md": settings_page,
    "reference/routes.md": routes_page,
    "reference/events.md": events_page,
    "reference/errors.md": errors_page,
    "reference/tables.md": tables_page,
    "reference/limits.md": limits_page,
    "reference/lifecycle.md": lifecycle_page,
    "reference/metrics.md": metrics_page,
}
_IN_PART: Final[Mapping[str, Callable[[str], str]]] = {  # the rest is written by hand
    "explanation/lifecycle.md": with_diagrams,
    "reference/topics.md": with_messages,
}


def pages() -> dict[str, str]:
    """Every page that is made from the code, by its path under `docs/`."""
    made = {name: _NOTE + page().rstrip() + "\n" for name, page in _PAGES.items()}
    in_part = {name: fill((DOCS / name).read_text("utf-8")) for name, fill in _IN_PART.items()}
    return made | in_part


def outdated(made: Mapping[str, str]) -> list[str]:
    """Pages whose file is missing or says something else."""
    return [name for name, text in made.items() if _stored(name) != text]


def _stored(name: str) -> str | None:
    file = DOCS / name
    return file.read_text("utf-8") if file.exists() else None


def main(arguments: list[str]) -> int:
    made = pages()
    stale = outdated(made)
    if "--check" in arguments:
        for name in stale:
            print(f"docs/{name} is not what the code says; run `make reference`")
        return 1 if stale else 0
    for name in stale:
        (DOCS / name).write_text(made[name], "utf-8")
        print(f"wrote docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
