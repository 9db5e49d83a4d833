"""How fast Python itself is here: one loop of plain Python, to read figures of other machines by.

An interpreter built without profile-guided optimisation takes half as long again for it.
"""

import time
from typing import Final

_ROUNDS: Final = 200_000
_TURNS: Final = 5


class _Point:
    __slots__ = ("x", "y")

    def __init__(self, x: int, y: int) -> None:
        self.x = x
        self.y = y

    def along(self, slope: int) -> int:
        return self.x + self.y * slope


def python_loop_ms() -> float:
    """CPU time of the loop in ms, the least of five turns."""
    return min(_turn() for _ in range(_TURNS)) * 1_000


def _turn() -> float:
    """Seconds for calls, attributes, and small objects that come and go."""
    known: dict[int, int] = {}
    began = time.process_time()
    for number in range(_ROUNDS):
        point = _Point(number, 2)
        known[number & 1023] = point.along(3)
        pair = (point.x, point.y)
        _ = {**{"a": 1}, "b": pair}
    return time.process_time() - began
