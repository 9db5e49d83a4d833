"""The exact check tells histories that can be ordered from those that cannot."""

from math import inf

import pytest

from tests.faults.linearizable import Call, linearizable


def write(value: int, asked: float, answered: float) -> Call[int]:
    return Call(f"write {value}", asked, answered, lambda _: (value,))


def read(value: int, asked: float, answered: float) -> Call[int]:
    return Call(f"read {value}", asked, answered, lambda state: (state,) if state == value else ())


@pytest.mark.parametrize(
    ("calls", "possible"),
    [
        pytest.param([write(1, 0, 1), read(1, 2, 3)], True, id="one after the other"),
        pytest.param([write(1, 0, 1), read(0, 2, 3)], False, id="a stale read"),
        pytest.param([write(1, 0, 5), read(0, 2, 3)], True, id="at the same time, not yet"),
        pytest.param([write(1, 0, 5), read(1, 2, 3)], True, id="at the same time, already"),
        pytest.param(
            [write(1, 0, 9), read(1, 1, 2), read(0, 3, 4)], False, id="seen, then not seen"
        ),
        pytest.param([write(1, 0, inf), read(0, 9, 10)], True, id="unknown, it never happened"),
        pytest.param([write(1, 0, inf), read(1, 9, 10)], True, id="unknown, it did"),
        pytest.param([write(1, 0, inf), read(1, 2, 3), read(0, 4, 5)], False, id="unknown, undone"),
        pytest.param(
            [write(1, 0, 4), write(2, 0, 4), read(1, 5, 6), read(2, 7, 8)],
            False,
            id="two lasts",
        ),
    ],
)
def test_histories(calls: list[Call[int]], *, possible: bool) -> None:
    assert linearizable(calls, 0) is possible
    assert linearizable(calls[::-1], 0) is possible
