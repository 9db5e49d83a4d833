"""What a failure may say: bounded text that every store and every answer can hold."""

from typing import Final

MESSAGE_LENGTH_MAX: Final = 2_000


def plain_message(text: str) -> str:
    """Text that can be stored: no NUL, no lone surrogate, bounded."""
    cut = text if len(text) <= MESSAGE_LENGTH_MAX else text[: MESSAGE_LENGTH_MAX - 1] + "…"
    return cut.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
