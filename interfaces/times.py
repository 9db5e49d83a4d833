"""Times as callers write them: RFC 3339, UTC when they name no offset."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+ -]\d\d:\d\d)?", re.ASCII
)
_FORM: Final = "a time is written like 2026-11-20T09:30:00Z (RFC 3339)"


def read_time(text: str) -> datetime:
    """An aware UTC time of the years 1970 to 9998; raises ValueError.

    A blank before an offset stands for the plus sign of a query that was not encoded.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError(_FORM)
    if text[-6] == " ":
        text = f"{text[:-6]}+{text[-5:]}"
    try:
        time = datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(_FORM) from None
    if not 1970 < time.year < 9999:  # so that no offset leads out of the calendar
        raise ValueError("the year is 1971 to 9998")
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _time(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        return read_time(value)
    except (TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else _FORM
        raise PydanticCustomError("bad_time", "{reason}", {"reason": reason}) from None


Time = Annotated[
    datetime,
    BeforeValidator(_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
