"""The circuit breaker of an agent: which calls are let through while it fails, decided purely.

*Closed*, every call goes through, until `failure_threshold` of them in a row failed, or
`failure_rate_threshold` of those within the window (if there were that many). *Open*, none does for
`timeout_seconds`. *Half-open*, `half_open_max_calls` probes do: all must succeed to close it, one
failure opens it again. Source of the rules: docs/explanation/agents.md.

A `Breaker` is a value that all processes share; who changes it and how that is stored is in
`application/breakers.py`.
"""

from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct, structs

from domain.json_values import Json, JsonObject
from domain.lifecycle import LifecycleMachine, compile_table, follow
from domain.mistakes import Fields, Mistake

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half_open"
BREAKER_STATES: Final = (CLOSED, OPEN, HALF_OPEN)

SLICES: Final = 12
"""Parts of the window: calls are counted per part and forgotten with it."""
CALLS_MAX: Final = 1_000
SECONDS_MAX: Final = 3_600

CallResult = Literal["success", "failure", "neither"]
"""Of one call, for the breaker: `failure` means that the agent did not answer as an agent does,
`neither` that the call told nothing of it (it was never sent, or it was given up)."""


class BreakerSettings(Struct, frozen=True, kw_only=True):
    """When it opens and closes; an agent's `circuit_breaker_config` has the same members."""

    failure_threshold: int = 5
    failure_rate_threshold: float = 0.5
    window_size_seconds: float = 120.0
    timeout_seconds: float = 60.0
    half_open_max_calls: int = 3


DEFAULT_SETTINGS: Final = BreakerSettings()
_MEMBERS: Final = frozenset(BreakerSettings.__struct_fields__)


class Slice(Struct, frozen=True, array_like=True):
    """The calls that ended in one part of the window, which begins at `start` (Unix seconds)."""

    start: float
    calls: int
    failures: int


class Probe(Struct, frozen=True, array_like=True):
    """A call let through while half-open. Who made it is lost if it has not ended by `until`."""

    number: int
    until: datetime


class Breaker(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an agent's calls. The default is that of an agent nobody called yet."""

    state: str = CLOSED
    round: int = 0
    """+1 with every change of state, so that a call's result counts where the call began only."""
    failures_in_a_row: int = 0
    window: tuple[Slice, ...] = ()
    opened_at: datetime | None = None
    """When it opened last; kept while half-open."""
    cause: str = ""
    """Why it opened last, in words."""
    probes: tuple[Probe, ...] = ()
    """Those under way."""
    probes_begun: int = 0
    probes_succeeded: int = 0


class Admitted(Struct, frozen=True):
    """The call may be made. `probe` is its number when it is one, else 0."""

    round: int
    probe: int = 0


class Refused(Struct, frozen=True):
    """The call must not be made. `retry_at` is when another may be, if nothing happens before."""

    retry_at: datetime | None = None


def breaker_machine() -> LifecycleMachine:
    """The declaration, for the table below, the diagram and a test."""
    return LifecycleMachine(
        model=None,
        states=list(BREAKER_STATES),
        transitions=[
            {"trigger": "trip", "source": CLOSED, "dest": OPEN},
            {"trigger": "probe", "source": OPEN, "dest": HALF_OPEN},
            {"trigger": "probe_failed", "source": HALF_OPEN, "dest": OPEN},
            {"trigger": "probes_succeeded", "source": HALF_OPEN, "dest": CLOSED},
        ],
        initial=CLOSED,
        auto_transitions=False,
    )


BREAKER_TABLE: Final = compile_table(breaker_machine())


def admit(
    breaker: Breaker, settings: BreakerSettings, now: datetime, limit: timedelta
) -> tuple[Admitted | Refused, Breaker]:
    """Whether one more call may be made, and the breaker with that call in it.

    A call ends within `limit`, else it is taken for lost. The same object comes back when nothing
    changed; else the call may begin only once the new one is stored.
    """
    if breaker.state == CLOSED:
        return Admitted(breaker.round), breaker
    after = breaker
    if breaker.state == OPEN:
        due = _due(breaker, settings)
        if due is not None and now < due:
            return Refused(due), breaker
        after = _moved(breaker, "probe", opened_at=breaker.opened_at, cause=breaker.cause)
    if after.probes_succeeded >= settings.half_open_max_calls:
        # Since they succeeded fewer were made to be enough; no probe comes that could close it.
        closed = _moved(after, "probes_succeeded")
        return Admitted(closed.round), closed
    under_way = tuple(probe for probe in after.probes if now < probe.until)
    if len(under_way) + after.probes_succeeded >= settings.half_open_max_calls:
        return Refused(min((probe.until for probe in under_way), default=None)), breaker
    number = after.probes_begun + 1
    return Admitted(after.round, number), structs.replace(
        after, probes=(*under_way, Probe(number, now + limit)), probes_begun=number
    )


def record(
    breaker: Breaker,
    settings: BreakerSettings,
    call: Admitted,
    result: CallResult,
    now: datetime,
    *,
    calls: int = 1,
) -> Breaker:
    """The breaker after `calls` calls, admitted as `call` says, ended alike.

    The same object comes back when that changes nothing: for a call of an earlier round, for a
    probe that was taken for lost.
    """
    if call.round != breaker.round:
        return breaker
    if breaker.state == CLOSED:
        return breaker if result == "neither" else _counted(breaker, settings, result, now, calls)
    left = tuple(probe for probe in breaker.probes if probe.number != call.probe)
    if len(left) == len(breaker.probes):
        return breaker
    match result:
        case "failure":
            return _moved(breaker, "probe_failed", opened_at=now, cause="a probe failed")
        case "neither":
            return structs.replace(breaker, probes=left)
        case "success":
            succeeded = breaker.probes_succeeded + 1
            if succeeded >= settings.half_open_max_calls:
                return _moved(breaker, "probes_succeeded")
            return structs.replace(breaker, probes=left, probes_succeeded=succeeded)


def next_call_at(breaker: Breaker, settings: BreakerSettings) -> datetime | None:
    """When an open breaker lets the next call through; None when it is not open."""
    return _due(breaker, settings) if breaker.state == OPEN else None


def read_breaker_settings(raw: Json, pointer: str, mistakes: list[Mistake]) -> BreakerSettings:
    """The settings in an agent's `circuit_breaker_config`, with the defaults for what it leaves out
    (null: all of them); every mistake is noted with its place below `pointer`.
    """
    if raw is None:
        return DEFAULT_SETTINGS
    if not isinstance(raw, dict):
        message = 'A circuit_breaker_config is a JSON object like {"failure_threshold": 5}.'
        mistakes.append(Mistake(pointer, "not_an_object", message))
        return DEFAULT_SETTINGS
    given: JsonObject = {name: value for name, value in raw.items() if value is not None}
    fields = Fields(given, pointer, mistakes)
    fields.refuse_others(_MEMBERS)
    default = DEFAULT_SETTINGS
    return BreakerSettings(
        failure_threshold=fields.whole(
            "failure_threshold", 1, CALLS_MAX, default.failure_threshold
        ),
        failure_rate_threshold=fields.number(
            "failure_rate_threshold", 0.01, 1, default.failure_rate_threshold
        ),
        window_size_seconds=fields.number(
            "window_size_seconds", 1, SECONDS_MAX, default.window_size_seconds
        ),
        timeout_seconds=fields.number("timeout_seconds", 1, SECONDS_MAX, default.timeout_seconds),
        half_open_max_calls=fields.whole(
            "half_open_max_calls", 1, CALLS_MAX, default.half_open_max_calls
        ),
    )


def _counted(
    breaker: Breaker, settings: BreakerSettings, result: CallResult, now: datetime, calls: int
) -> Breaker:
    failures = calls if result == "failure" else 0
    window = _window(breaker.window, settings, now, calls, failures)
    row = breaker.failures_in_a_row + failures if failures else 0
    total, failed = sum(part.calls for part in window), sum(part.failures for part in window)
    cause = ""
    if failures and row >= settings.failure_threshold:
        cause = f"{row} calls failed in a row"
    elif (
        failures
        and total >= settings.failure_threshold
        and failed >= settings.failure_rate_threshold * total
    ):
        cause = f"{failed} of {total} calls failed within {settings.window_size_seconds:g} s"
    if cause:
        return _moved(breaker, "trip", opened_at=now, cause=cause)
    return structs.replace(breaker, failures_in_a_row=row, window=window)


def _window(
    window: tuple[Slice, ...], settings: BreakerSettings, now: datetime, calls: int, failures: int
) -> tuple[Slice, ...]:
    width = settings.window_size_seconds / SLICES
    start = now.timestamp() // width * width
    kept = [part for part in window if part.start > start - settings.window_size_seconds]
    if kept and kept[-1].start >= start:  # a process whose clock is behind counts there as well
        last = kept.pop()
        start, calls, failures = last.start, last.calls + calls, last.failures + failures
    return (*kept, Slice(start, calls, failures))


def _due(breaker: Breaker, settings: BreakerSettings) -> datetime | None:
    if breaker.opened_at is None:
        return None
    return breaker.opened_at + timedelta(seconds=settings.timeout_seconds)


def _moved(
    breaker: Breaker, trigger: str, *, opened_at: datetime | None = None, cause: str = ""
) -> Breaker:
    """A breaker that enters another state knows nothing of the calls before."""
    state = follow(BREAKER_TABLE, breaker.state, trigger)
    if state is None:
        raise ValueError(f"a breaker that is {breaker.state} cannot {trigger}")
    return Breaker(state=state, round=breaker.round + 1, opened_at=opened_at, cause=cause)
