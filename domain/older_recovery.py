"""The forms in which the older systems wrote recovery: L's `retry_strategy`, R's
`recovery_strategy`. Both become ordinary stages, or a step's `recovery_config`.
"""

from typing import Final

from domain.json_values import JsonObject, pointer_join
from domain.mistakes import Fields
from domain.recovery_config import ATTEMPTS_MAX, MILLISECONDS_LIMIT, MULTIPLIER_MAX
from domain.stage_reader import read_ask, read_status_codes

_STRATEGIES: Final = {
    "exponential_backoff": "exponential",
    "fixed_delay": "fixed",
    "linear_backoff": "linear",
    "immediate": "immediate",
}
_RETRY_STRATEGY_FIELDS: Final = frozenset(
    [
        "type",
        "max_retries",
        "initial_delay_ms",
        "max_delay_ms",
        "backoff_multiplier",
        "jitter",
        "retry_on_errors",
        "retry_on_status_codes",
    ]
)
_STRATEGY_NAMES: Final = ("Retry", "AlternativeFlow", "UserFulfillment")


def read_retry_strategy(step: Fields) -> JsonObject:
    """L's form as a stage `retry`."""
    raw = step.object("retry_strategy")
    fields = Fields(raw, pointer_join(step.pointer, "retry_strategy"), step.mistakes)
    fields.refuse_others(_RETRY_STRATEGY_FIELDS)
    kind = fields.choice("type", tuple(_STRATEGIES), "exponential_backoff")
    return {
        "kind": "retry",
        "attempts": fields.whole("max_retries", 0, ATTEMPTS_MAX, 3),
        "base_delay_ms": fields.whole("initial_delay_ms", 0, MILLISECONDS_LIMIT, 1_000),
        "multiplier": fields.number("backoff_multiplier", 1, MULTIPLIER_MAX, 2.0),
        "max_delay_ms": fields.whole("max_delay_ms", 0, MILLISECONDS_LIMIT, 30_000),
        "first_retry_at_once": False,
        "strategy": _STRATEGIES[kind or "exponential_backoff"],
        "jitter": fields.flag("jitter", False),
        "retry_on_errors": fields.texts("retry_on_errors"),
        "retry_on_status_codes": read_status_codes(fields),
    }


def read_recovery_strategy(step: Fields, step_id: str) -> tuple[JsonObject | None, JsonObject]:
    """R's form, tagged by its one member, as (stage or None, members of `recovery_config`).

    `Retry` has its waits from the execution's settings, so it is a setting and no stage.
    """
    raw = step.raw["recovery_strategy"]
    place = "recovery_strategy"
    if not isinstance(raw, dict) or len(raw) != 1 or next(iter(raw)) not in _STRATEGY_NAMES:
        message = f"recovery_strategy is an object with one of {', '.join(_STRATEGY_NAMES)}."
        step.refuse("bad_value", message, place)
        return None, {}
    name, given = next(iter(raw.items()))
    pointer = pointer_join(step.pointer, place, name)
    fields = Fields(given if isinstance(given, dict) else {}, pointer, step.mistakes)
    if not isinstance(given, dict):
        step.refuse("bad_value", f"{name} is an object.", place, name)
    if name == "Retry":
        fields.refuse_others(frozenset({"attempts"}))
        return None, {"retry_attempts": fields.whole("attempts", 0, ATTEMPTS_MAX, 3)}
    if name == "UserFulfillment":
        fields.refuse_others(frozenset({"questions"}))
        return read_ask(step, {"questions": fields.texts("questions")}, place, name), {}
    fields.refuse_others(frozenset({"flow_id"}))
    flow = fields.step_id("flow_id")
    if flow is None:
        message = "flow_id names an alternative of the definition or of the server."
        fields.refuse("missing_field", message, "flow_id")
        return None, {}
    if flow == step_id:
        message = "This alternative is the step itself; name another one."
        fields.refuse("cycle", message, "flow_id")
        return None, {}
    return {"kind": "alternative", "rule": flow}, {}
