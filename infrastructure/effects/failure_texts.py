"""What a failure may say: bounded text that every store and every answer can hold."""

from typing import Final

from domain.json_values import plain_text

MESSAGE_LENGTH_MAX: Final = 2_000


def plain_message(text: str) -> str:
    """Text that can be stored: no NUL, no lone surrogate, bounded."""
    return plain_text(text, MESSAGE_LENGTH_MAX)
