"""What kind of failure an error is: the lists as data, and the one rule that reads them.

`permanent` fails again, `transient` and `timeout` may pass, `unknown` is tried again. What an
action states itself wins; then the text is compared, permanent before transient; then an HTTP
status decides. Source of the lists: docs/explanation/recovery.md.
"""

import re
from typing import Final

from msgspec import Struct

from domain.json_values import Json

ERROR_CLASSES: Final = ("permanent", "transient", "timeout", "unknown")
UNKNOWN: Final = "unknown"
PERMANENT: Final = "permanent"
STEP_TIMEOUT: Final = "step_timeout"
"""Code of a try that did not end in its time."""
_TRANSIENT_4XX: Final = frozenset((408, 425, 429))
_STATUS_IN_TEXT: Final = re.compile(r"\bHTTP (\d{3})\b")


class ErrorLists(Struct, frozen=True):
    """Texts that tell the class of an error: any part of a message, in any case of letters."""

    permanent: tuple[str, ...] = (
        "insufficient funds",
        "invalid signature",
        "account not found",
        "invalid instruction",
        "custom program error",
        "permission denied",
        "authentication failed",
    )
    transient: tuple[str, ...] = (
        "timeout",
        "network error",
        "connection refused",
        "rate limit",
        "temporary failure",
        "service unavailable",
        "slot skipped",
        "blockhash not found",
    )


DEFAULT_LISTS: Final = ErrorLists()


class Failure(Struct, frozen=True):
    """What recovery looks at in a failed try. `status` is that of an HTTP answer, if there was one.

    `retryable` False is the action's own word that the same call fails again.
    """

    code: str
    error_class: str
    message: str
    retryable: bool = True
    status: int | None = None

    def says(self, texts: tuple[str, ...]) -> bool:
        """Whether the message or the code contains one of the texts, in any case of letters."""
        told = f"{self.code} {self.message}".lower()
        return any(text.lower() in told for text in texts)

    @property
    def passes(self) -> bool:
        """Whether the same call may work later."""
        return self.retryable and self.error_class != PERMANENT


def classify(stated: str, message: str, status: int | None, lists: ErrorLists) -> str:
    """The class of an error; `stated` is the action's own word, `unknown` when it has none."""
    if stated and stated != UNKNOWN:
        return stated
    told = message.lower()
    for name, texts in ((PERMANENT, lists.permanent), ("transient", lists.transient)):
        if any(text.lower() in told for text in texts):
            return name
    return UNKNOWN if status is None else class_of_status(status)


def class_of_status(status: int) -> str:
    """5xx and 408, 425, 429 may pass; every other refusal stays one."""
    if status >= 500 or status in _TRANSIENT_4XX:
        return "transient"
    return PERMANENT if status >= 400 else UNKNOWN


def status_of_failure(message: str, output: Json) -> int | None:
    """The HTTP status of a failed call: from what came back, or from a text like `HTTP 503: ...`.

    None when there was none.
    """
    status = output.get("status") if isinstance(output, dict) else None
    if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
        return status
    found = _STATUS_IN_TEXT.search(message)
    return None if found is None else int(found[1])
