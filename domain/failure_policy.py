"""What a step does about failure, from the several ways to say it, in one normal form.

`critical` says whether the failure ends the execution, `recovery` lists what is tried before.
"""

from typing import Final

from domain.json_values import Json, JsonObject
from domain.mistakes import SECONDS_MAX, Fields, is_number

ATTEMPTS_MAX: Final = 100
FIELDS: Final = frozenset({"critical", "on_error", "retry", "recovery"})
_MILLISECONDS_MAX: Final = SECONDS_MAX * 1_000
_RETRY_DEFAULTS: Final[JsonObject] = {
    "attempts": 3,
    "base_delay_ms": 1_000,
    "multiplier": 2.0,
    "max_delay_ms": 10_000,
}
_RETRY_BOUNDS: Final = {
    "attempts": (0, ATTEMPTS_MAX),
    "base_delay_ms": (0, _MILLISECONDS_MAX),
    "multiplier": (1, 100),
    "max_delay_ms": (0, _MILLISECONDS_MAX),
}


def read_failure_policy(step: Fields) -> JsonObject:
    """`{"critical": bool, "recovery": [stage]}`; on_error is stop (default), continue or retry."""
    mode, critical = _mode(step), _critical(step)
    if mode is not None and critical is (mode == "continue"):
        meant = str(mode != "continue").lower()
        message = f"on_error {mode!r} means critical {meant}; leave one of the two out."
        step.refuse("contradiction", message, "critical")
    retry = step.raw.get("retry")
    if retry is not None and mode in ("stop", "continue"):
        message = f"on_error {mode!r} does not retry; leave on_error out."
        step.refuse("contradiction", message, "retry")
    is_critical = mode != "continue" if critical is None else critical
    recovery: list[Json] = []
    if "recovery" in step.raw:
        if mode is not None or retry is not None:
            message = "Give recovery, or on_error and retry, not both."
            step.refuse("contradiction", message, "recovery")
        recovery = _stages(step)
    elif mode == "retry" or retry is not None:
        recovery = [_retry(step, {} if retry is None else retry, "retry")]
    return {"critical": is_critical, "recovery": recovery}


def _mode(step: Fields) -> str | None:
    mode = step.raw.get("on_error")
    if mode is None or mode in ("stop", "continue", "retry"):
        return str(mode) if mode else None
    step.refuse("bad_value", "on_error is stop, continue or retry.", "on_error")
    return None


def _critical(step: Fields) -> bool | None:
    critical = step.raw.get("critical")
    if critical is None or isinstance(critical, bool):
        return critical
    step.refuse("bad_value", "critical is true or false.", "critical")
    return None


def _stages(step: Fields) -> list[Json]:
    stages = step.raw["recovery"]
    if not isinstance(stages, list):
        step.refuse("bad_value", "recovery is a list of stages.", "recovery")
        return []
    kept: list[Json] = []
    for index, stage in enumerate(stages):
        if not isinstance(stage, dict) or stage.get("kind") != "retry" or kept:
            message = "Only one stage of kind retry is available yet."
            step.refuse("not_available_yet", message, "recovery", index)
            continue
        settings = {name: value for name, value in stage.items() if name != "kind"}
        kept.append(_retry(step, settings, "recovery", index))
    return kept


def _retry(step: Fields, raw: Json, *place: str | int) -> JsonObject:
    stage: JsonObject = {"kind": "retry", **_RETRY_DEFAULTS}
    if not isinstance(raw, dict):
        message = "retry is an object with attempts, base_delay_ms, multiplier, max_delay_ms."
        step.refuse("bad_value", message, *place)
        return stage
    for field, value in raw.items():
        if field not in _RETRY_BOUNDS:
            known = ", ".join(_RETRY_BOUNDS)
            message = f"{field!r} is not a field here; known are {known}."
            step.refuse("unknown_field", message, *place, field)
            continue
        low, high = _RETRY_BOUNDS[field]
        whole = field != "multiplier"
        if not is_number(value) or (whole and isinstance(value, float)):
            message = f"{field} is a {'whole ' if whole else ''}number."
            step.refuse("bad_value", message, *place, field)
        elif not low <= value <= high:
            message = f"{field} is between {low} and {high}."
            step.refuse("out_of_range", message, *place, field)
        else:
            stage[field] = value if whole else float(value)
    return stage
