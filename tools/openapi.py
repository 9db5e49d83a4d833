"""Write docs/reference/openapi.json from the routes: `python -m tools.openapi`."""

import json
from pathlib import Path
from typing import Any

from interfaces.http.app import create_app

SNAPSHOT = Path(__file__).parent.parent / "docs" / "reference" / "openapi.json"


def described() -> str:
    """The text of the file; members in the order of the routes."""
    app = create_app(None)  # type: ignore[arg-type]  # no request is made
    document: dict[str, Any] = app.openapi()
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SNAPSHOT.parent.mkdir(parents=True, exist_ok=True)
    SNAPSHOT.write_text(described(), "utf-8")
