"""What may be tried before a failure stands: re-tries, other work, a question to a person.

Frozen values made from the normalised `recovery` of a step and the `alternatives` of a definition;
`domain/stage_reader.py` reads what clients write.
"""

from typing import Final

from msgspec import Struct

from domain.agent_names import AGENT, agent_action
from domain.error_classes import Failure
from domain.json_values import Json, JsonObject

RETRY: Final = "retry"
ALTERNATIVE: Final = "alternative_flow"
ASK: Final = "user_fulfillment"
"""Names of the strategies in events and figures."""

EXPONENTIAL: Final = "exponential"
RETRY_STRATEGIES: Final = (EXPONENTIAL, "fixed", "linear", "immediate")
ON_TIMEOUT: Final = ("skip", "abort", "retry")


class RetryPolicy(Struct, frozen=True):
    """Automatic re-tries after the first call.

    The row of waits is base * multiplier^(k-1) (exponential), base (fixed), base * k (linear) or 0
    (immediate), each at most `max_delay_ms`, in milliseconds. `first_retry_at_once` shifts it by
    one: 0, base, ... With `on_errors` or `on_status_codes` only what they name is tried again, and
    that whatever its class.
    """

    attempts: int
    base_delay_ms: int
    multiplier: float
    max_delay_ms: int
    first_retry_at_once: bool = False
    strategy: str = EXPONENTIAL
    jitter: bool = False
    on_errors: tuple[str, ...] = ()
    on_status_codes: tuple[int, ...] = ()


class InputChange(Struct, frozen=True):
    """One change of the failed try's input at `path` (`amount`, `body.amount`, `items.0`).

    The number there is multiplied, or, with `multiply` None, the value replaced by `value`.
    """

    path: str
    multiply: float | None
    value: Json


class Alternative(Struct, frozen=True):
    """Other work for a failed step: an action (an agent's as `agent:NAME`), or `workflow`, by name
    or id.

    With neither it is the step's own work, with a changed input.

    It fits a failure that says one of `error_contains`, has `error_class` and `code`, each where
    given.
    """

    id: str
    action: str | None
    changes: tuple[InputChange, ...] = ()
    error_contains: tuple[str, ...] = ()
    error_class: str | None = None
    code: str | None = None
    workflow: str | None = None

    def fits(self, failure: Failure) -> bool:
        """Whether it is meant for this failure."""
        return (
            (not self.error_contains or failure.says(self.error_contains))
            and self.error_class in (None, failure.error_class)
            and self.code in (None, failure.code)
        )


class NamedAlternative(Struct, frozen=True):
    """A step's wish for one of the named rules, whatever the failure says."""

    id: str


class AskPolicy(Struct, frozen=True):
    """A question to a person. `answer_timeout_ms` None leaves it to the execution's settings."""

    answer_timeout_ms: int | None = None
    on_timeout: str = "skip"
    questions: tuple[str, ...] = ()


Stage = RetryPolicy | Alternative | NamedAlternative | AskPolicy


def compile_stage(raw: JsonObject) -> Stage:
    """A stage of a normalised definition."""
    match raw["kind"]:
        case "retry":
            return _retry(raw)
        case "alternative" if "rule" in raw:
            return NamedAlternative(str(raw["rule"]))
        case "alternative":
            return compile_alternative(raw)
    timeout = raw["answer_timeout_ms"]
    return AskPolicy(
        answer_timeout_ms=timeout if isinstance(timeout, int) else None,
        on_timeout=str(raw["on_timeout"]),
        questions=_texts(raw["questions"]),
    )


def compile_alternative(raw: JsonObject) -> Alternative:
    """An alternative of a normalised definition, or of the server's rules in the same form."""
    when, work = _members(raw["when"]), _members(raw["do"])
    changes, agent = raw["input"], _text(work.get(AGENT))
    return Alternative(
        id=str(raw["id"]),
        action=_text(work["action"]) if agent is None else agent_action(agent),
        changes=tuple(
            _change(_members(each)) for each in (changes if isinstance(changes, list) else [])
        ),
        error_contains=_texts(when["error_contains"]),
        error_class=_text(when["class"]),
        code=_text(when["code"]),
        workflow=_text(work.get("workflow")),
    )


def _retry(raw: JsonObject) -> RetryPolicy:
    codes = raw.get("retry_on_status_codes")
    return RetryPolicy(
        attempts=_whole(raw["attempts"]),
        base_delay_ms=_whole(raw["base_delay_ms"]),
        multiplier=_number(raw["multiplier"]) or 1.0,
        max_delay_ms=_whole(raw["max_delay_ms"]),
        first_retry_at_once=raw.get("first_retry_at_once") is True,
        strategy=str(raw.get("strategy", EXPONENTIAL)),
        jitter=raw.get("jitter") is True,
        on_errors=_texts(raw.get("retry_on_errors")),
        on_status_codes=tuple(
            code for code in (codes if isinstance(codes, list) else []) if isinstance(code, int)
        ),
    )


def _change(raw: JsonObject) -> InputChange:
    multiply = raw.get("multiply")
    factor = multiply if isinstance(multiply, int | float) else None
    return InputChange(str(raw["path"]), factor, raw.get("set"))


def _members(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list) else ()


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _whole(value: Json) -> int:
    return int(_number(value))
