"""Questions to a person about a failed step: their texts, and how an answer is understood."""

from typing import Final, NamedTuple
from uuid import UUID

from domain.error_classes import Failure

RETRY: Final = "retry"
SKIP: Final = "skip"
ABORT: Final = "abort"
ALTERNATIVE: Final = "alternative"
OPTIONS: Final = (RETRY, SKIP, ABORT)
ANSWER_CHARACTERS_MAX: Final = 4_096
_MESSAGE_MAX: Final = 300
_BY_STEP_ID: Final = (
    ("swap", ("Use another exchange?", "Use a smaller amount?")),
    ("lend", ("Use another protocol?", "Use a smaller amount?")),
)
"""What else is asked of a step whose id contains the word."""
_WORDS: Final = (
    (RETRY, ("retry", "yes")),
    (SKIP, ("skip", "continue")),
    (ABORT, ("abort", "cancel")),
)
"""Free text is read by the first of these that it contains."""


class Understood(NamedTuple):
    """`kind` is retry, skip, abort or alternative; `read_as` exact, text or ambiguous."""

    kind: str
    alternative: str | None
    read_as: str


def question_id(execution_id: UUID, number: int) -> str:
    """`q-{execution}-{n}`: the id names the execution, so no table is needed to find it."""
    return f"q-{execution_id.hex}-{number}"


def question_texts(step_id: str, failure: Failure, own: tuple[str, ...]) -> tuple[str, ...]:
    """What a person is asked, in order: the step's own questions stand before the usual ones."""
    why = failure.message[:_MESSAGE_MAX] or failure.code
    found = [*own, f"Retry step {step_id!r}? It failed: {why}"]
    for word, texts in _BY_STEP_ID:
        if word in step_id.lower():
            found += [text for text in texts if text not in found]
    found += [f"Skip step {step_id!r} and go on?", "Abort the execution?"]
    return tuple(found)


def understand(answer: str) -> Understood:
    """`retry`, `skip`, `abort`, `alternative:{id}`, or any text; what says nothing is retry."""
    told = answer.strip()
    word = told.lower()
    if word in OPTIONS:
        return Understood(word, None, "exact")
    if word.startswith(f"{ALTERNATIVE}:"):
        return Understood(ALTERNATIVE, told.partition(":")[2].strip(), "exact")
    for kind, words in _WORDS:
        if any(each in word for each in words):
            return Understood(kind, None, "text")
    return Understood(RETRY, None, "ambiguous")
