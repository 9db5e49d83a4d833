"""RecoveryConfig: how an execution deals with failing steps, with its defaults.

Three layers, each partial: a step's `recovery_config` over the execution's `recovery` over the
server's. What an execution was given is completed once, when it is requested, and stored with it.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct, structs

from domain.json_values import Json, JsonObject
from domain.mistakes import SECONDS_MAX, Fields, Mistake

ATTEMPTS_MAX: Final = 100
MILLISECONDS_LIMIT: Final = SECONDS_MAX * 1_000
MULTIPLIER_MAX: Final = 100


class RecoveryConfig(Struct, frozen=True, kw_only=True):
    """Times in milliseconds.

    `retry_attempts` are re-tries after the first call, the first of them at once, then after base,
    base * multiplier, ... up to max. `max_recovery_time_ms` is what one step's recovery may take
    and `total_budget_ms` what those of one execution may take together; a question to a person
    stops both clocks for at most `answer_timeout_ms`.
    """

    base_retry_delay_ms: int = 1_000
    max_retry_delay_ms: int = 10_000
    backoff_multiplier: float = 2.0
    max_recovery_time_ms: int = 30_000
    enable_alternative_flows: bool = True
    enable_user_fulfillment: bool = False
    retry_attempts: int = 3
    jitter: bool = False
    answer_timeout_ms: int = 86_400_000
    total_budget_ms: int | None = None


DEFAULT_CONFIG: Final = RecoveryConfig()


def _milliseconds(low: int) -> Callable[[Fields, str], Json]:
    return lambda fields, name: fields.whole(name, low, MILLISECONDS_LIMIT)


_READERS: Final[dict[str, Callable[[Fields, str], Json]]] = {
    "base_retry_delay_ms": _milliseconds(0),
    "max_retry_delay_ms": _milliseconds(0),
    "backoff_multiplier": lambda fields, name: fields.number(name, 1, MULTIPLIER_MAX),
    "max_recovery_time_ms": _milliseconds(0),
    "enable_alternative_flows": lambda fields, name: fields.flag(name),
    "enable_user_fulfillment": lambda fields, name: fields.flag(name),
    "retry_attempts": lambda fields, name: fields.whole(name, 0, ATTEMPTS_MAX),
    "jitter": lambda fields, name: fields.flag(name),
    "answer_timeout_ms": _milliseconds(1),
    "total_budget_ms": _milliseconds(0),
}
_OF_THE_EXECUTION: Final = frozenset({"total_budget_ms"})


def read_recovery_config(
    raw: Json, pointer: str, mistakes: list[Mistake], *, of_step: bool = False
) -> JsonObject:
    """The members that were given, checked; every mistake is noted with its place below `pointer`.

    A step has no `total_budget_ms`: that belongs to the whole execution.
    """
    if not isinstance(raw, dict):
        message = 'A recovery configuration is a JSON object like {"retry_attempts": 3}.'
        mistakes.append(Mistake(pointer, "not_an_object", message))
        return {}
    fields = Fields(raw, pointer, mistakes)
    known = _READERS.keys() - _OF_THE_EXECUTION if of_step else _READERS.keys()
    fields.refuse_others(frozenset(known))
    given: JsonObject = {
        name: read(fields, name)
        for name, read in _READERS.items()
        if name in known and raw.get(name) is not None
    }
    base, limit = given.get("base_retry_delay_ms"), given.get("max_retry_delay_ms")
    if isinstance(base, int) and isinstance(limit, int) and base > limit:
        message = "base_retry_delay_ms is larger than max_retry_delay_ms; every wait would be cut."
        fields.refuse("contradiction", message, "base_retry_delay_ms")
    return given


def completed(given: JsonObject, below: RecoveryConfig | None = None) -> RecoveryConfig:
    """What was given, without mistakes, over the layer `below`, over the defaults."""
    return structs.replace(below or DEFAULT_CONFIG, **given)


def config_as_json(config: RecoveryConfig) -> JsonObject:
    """Every member, as it is stored with an execution."""
    built: JsonObject = msgspec.to_builtins(config)
    return built


def config_of_json(stored: JsonObject) -> RecoveryConfig:
    """What `config_as_json` made; members of later releases get their defaults."""
    known = {name: value for name, value in stored.items() if name in _READERS}
    return completed(known)
