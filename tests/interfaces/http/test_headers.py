"""Rules that headers and times follow, without a server."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from starlette.requests import Request

from application.views import ExecutionView, WaitView
from interfaces.http.conditional import (
    expected_version,
    is_current,
    known_version,
    poll_after_seconds,
    wait_seconds,
)
from interfaces.http.problems import Refused
from interfaces.times import read_time

BORN = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


def request(**headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "headers": pairs})


class View:
    """As much of an execution as a poll looks at."""

    def __init__(self, *waits: WaitView) -> None:
        self.created_at = BORN
        self.waiting_on = waits


def poll(age_seconds: float, *waits: WaitView) -> int:
    view: Any = View(*waits)
    assert set(vars(view)) <= set(ExecutionView.__annotations__)
    return poll_after_seconds(view, BORN + timedelta(seconds=age_seconds))


@pytest.mark.parametrize(
    ("age", "pause"),
    [(0, 1), (9.9, 1), (10, 2), (59, 2), (60, 5), (599, 5), (600, 15), (3599, 15), (3600, 30)],
)
def test_polls_get_rarer_with_age(age: float, pause: int) -> None:
    assert poll(age) == pause
    assert poll(age, WaitView("action", "a", None, None)) == pause


@pytest.mark.parametrize(("due_in", "pause"), [(-5, 1), (0.2, 1), (4, 4), (500, 30)])
def test_a_poll_comes_in_time_for_a_timer(due_in: float, pause: int) -> None:
    until = BORN + timedelta(seconds=due_in)
    assert poll(0, WaitView("retry", "a", until, None)) == pause
    both = (WaitView("timer", "a", until, None), WaitView("action", "b", None, None))
    assert poll(0, *both) == 1


def test_a_person_takes_time() -> None:
    assert poll(0, WaitView("human_task", "a", None, None)) == 30


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("wait=5", 5),
        ("respond-async, wait=5", 5),
        ("WAIT = 5", 5),
        ('wait="5"', 5),
        ("wait=5; x=y", 5),
        ("wait=31", 30),
        ("wait=0", 0),
        ("handling=lenient", None),
        ("", None),
    ],
)
def test_preferences_are_read(text: str, seconds: int | None) -> None:
    assert wait_seconds(request(prefer=text)) == seconds


def test_tags_are_compared_as_their_header_says() -> None:
    assert expected_version(request()) is None
    assert expected_version(request(if_match="*")) is None
    assert expected_version(request(if_match='"7"')) == 7
    assert expected_version(request(if_match='W/"7"')) == 0  # a weak tag never matches here
    assert is_current(request(if_none_match='"6", W/"7"'), 7)
    assert not is_current(request(if_none_match='"6"'), 7)
    assert not is_current(request(), 7)
    assert known_version(request(if_none_match='W/"7"')) == 7
    assert known_version(request(if_none_match='"6", "7"')) is None
    with pytest.raises(Refused):
        is_current(request(if_none_match="7"), 7)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T09:30:00Z",
        "2026-11-20t09:30:00z",
        "2026-11-20 09:30:00",
        "2026-11-20T09:30:00.000000000Z",
        "2026-11-20T10:30:00+01:00",
        "2026-11-20T10:30:00 01:00",
    ],
)
def test_times_are_read_as_utc(text: str) -> None:
    assert read_time(text) == BORN
    assert read_time(text).tzinfo is UTC


@pytest.mark.parametrize("year", [1970, 9999])
def test_times_stay_inside_the_calendar(year: int) -> None:
    edge = datetime(year, 6, 1, tzinfo=timezone(timedelta(hours=-12)))
    with pytest.raises(ValueError, match="the year is"):
        read_time(edge.isoformat())


def test_lines_of_one_header_are_one_list() -> None:
    def lines(name: bytes, *values: bytes) -> Request:
        return Request({"type": "http", "headers": [(name, value) for value in values]})

    assert is_current(lines(b"if-none-match", b'"6"', b'"7"'), 7)
    assert known_version(lines(b"if-none-match", b'"6"', b'"7"')) is None
    assert wait_seconds(lines(b"prefer", b"respond-async", b"wait=5")) == 5
    with pytest.raises(Refused):
        expected_version(lines(b"if-match", b'"6"', b'"7"'))
