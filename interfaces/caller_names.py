"""What the name of a caller and a key may be: for REST, and for the command line, which tells
before it loads the framework.
"""

import re
from typing import Final

ACTOR_CHARACTERS_MAX: Final = 128
KEY_CHARACTERS_MAX: Final = 255
KEY_PATTERN: Final = r"^[\x21-\x7e]+$"
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


def is_name(text: str) -> bool:
    """Whether it names somebody, in any script."""
    return 1 <= len(text.strip()) <= ACTOR_CHARACTERS_MAX and text.isprintable()


def is_visible(text: str, characters_max: int = KEY_CHARACTERS_MAX) -> bool:
    """Whether it is of visible ASCII characters, as keys are, and not too long."""
    return len(text) <= characters_max and _VISIBLE.fullmatch(text) is not None
