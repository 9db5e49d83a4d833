"""`label.k=v` in a query: as many filters by label as the caller likes."""

import re
from typing import Final

from starlette.requests import Request

from interfaces.http.problems import refused_part

LABEL_PREFIX: Final = "label."
LABEL_NAME: Final = r"[A-Za-z0-9._-]{1,128}"
LABEL_CHARACTERS_MAX: Final = 256
LABELS_MAX: Final = 32
_NAME: Final = re.compile(LABEL_NAME)


async def label_filters(request: Request) -> dict[str, str]:
    """The labels that a list is filtered by; raises Refused for what no execution can have."""
    wanted: dict[str, str] = {}
    for parameter, value in request.query_params.multi_items():
        if not parameter.startswith(LABEL_PREFIX):
            continue
        name = parameter.removeprefix(LABEL_PREFIX)
        if not _NAME.fullmatch(name):
            raise refused_part(
                "query", LABEL_PREFIX, "bad_label", "a label's name is 1-128 of A-Z a-z 0-9 . _ -"
            )
        if len(value) > LABEL_CHARACTERS_MAX:
            raise refused_part(
                "query",
                parameter,
                "too_long",
                f"a label has at most {LABEL_CHARACTERS_MAX} characters",
            )
        wanted[name] = value
    if len(wanted) > LABELS_MAX:
        raise refused_part("query", LABEL_PREFIX, "too_many", f"at most {LABELS_MAX} labels")
    return wanted
