"""Which HTTP answers are failures, and which of them may pass when tried again."""

from application.steps import ErrorClass, StepFailure
from domain.json_values import Json, JsonObject
from infrastructure.effects.outbound import OutboundAnswer

_TRANSIENT_4XX = frozenset((408, 425, 429))


def error_class_of(status: int) -> ErrorClass:
    """5xx and 408, 425, 429 may pass; every other refusal stays one (RFC 9110, 6585, 8470)."""
    return "transient" if status >= 500 or status in _TRANSIENT_4XX else "permanent"


def status_failure(answer: OutboundAnswer, output: Json) -> StepFailure:
    """The failure of a step whose call was answered with a status that is no success."""
    return StepFailure(
        "http_status",
        f"{answer.url} answered {answer.status} {answer.reason}".rstrip(),
        error_class=error_class_of(answer.status),
        output=output,
        detail=status_detail(answer),
    )


def status_detail(answer: OutboundAnswer) -> JsonObject:
    """The status, and what the service says about trying again."""
    detail: JsonObject = {"status": answer.status}
    if "retry-after" in answer.headers:
        detail["retry_after"] = answer.headers["retry-after"][:100]
    return detail
