"""Questions about failed steps as callers read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from domain.definition import step_id_of
from domain.execution import ExecutionState
from domain.execution_state import Question


@dataclass(frozen=True, slots=True)
class QuestionView:
    """A question. `status`: OPEN, ANSWERED, or CLOSED when nobody waits for an answer any more.

    `options` are the exact answers; any text is an answer too. At `due_at` it is answered with
    `on_timeout`. `kind` is what the answer was taken for, `read_as` how.
    """

    question_id: str
    execution_id: str
    workflow_name: str
    step_id: str
    path: str
    attempt: int
    status: str
    questions: Sequence[str]
    options: Sequence[str]
    asked_at: datetime
    due_at: datetime
    on_timeout: str
    kind: str | None
    alternative: str | None
    read_as: str | None
    answer: str | None
    answered_at: datetime | None
    answered_by: str | None


def question_views(state: ExecutionState) -> tuple[QuestionView, ...]:
    """All of an execution, in the order in which they were asked."""
    return tuple(question_view(state, each) for each in _in_order(state))


def last_questions(state: ExecutionState) -> dict[str, Question]:
    """By the path of a step, the last one that was asked about it."""
    return {each.path: each for each in _in_order(state)}


def _in_order(state: ExecutionState) -> list[Question]:
    return sorted(state.questions.values(), key=lambda each: int(each.id.rpartition("-")[2]))


def status_of_question(state: ExecutionState, question: Question) -> str:
    """OPEN, ANSWERED or CLOSED."""
    if question.kind is not None:
        return "ANSWERED"
    return "OPEN" if state.waits_for_answer(question) else "CLOSED"


def question_view(state: ExecutionState, question: Question) -> QuestionView:
    """A question of an execution."""
    return QuestionView(
        question_id=question.id,
        execution_id=str(state.id),
        workflow_name=state.workflow_name,
        step_id=step_id_of(question.path),
        path=question.path,
        attempt=question.attempt,
        status=status_of_question(state, question),
        questions=question.texts,
        options=question.options,
        asked_at=question.asked_at,
        due_at=question.due_at,
        on_timeout=question.on_timeout,
        kind=question.kind,
        alternative=question.alternative,
        read_as=question.read_as,
        answer=question.answer,
        answered_at=question.answered_at,
        answered_by=question.answered_by,
    )
