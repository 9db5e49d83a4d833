"""Which question an answer is for, and whether it still takes one."""

from datetime import datetime

from domain.errors import Invalid, QuestionNotFound, StateConflict
from domain.execution_state import ExecutionState, Question
from domain.mistakes import Mistake
from domain.verbs import allowed_actions


def question_for(state: ExecutionState, question_id: str | None) -> Question:
    """The question of this id; None is the only open one.

    Raises NotFound, or Invalid when several are open and none is named.
    """
    if question_id is not None:
        question = state.questions.get(question_id)
        if question is None:
            raise QuestionNotFound(f"The execution has no question {question_id[:200]!r}.")
        return question
    open_now = [each for each in state.questions.values() if state.waits_for_answer(each)]
    if len(open_now) > 1:
        names = ", ".join(sorted(each.id for each in open_now))
        message = f"Several questions are open; name one of {names}."
        raise Invalid(message, [Mistake("/question_id", "missing", message)])
    if not open_now:
        raise StateConflict(
            f"The execution, {state.status}, has no open question.",
            current_status=state.status,
            allowed_actions=allowed_actions(state),
        )
    return open_now[0]


def require_open(state: ExecutionState, question: Question, now: datetime) -> None:
    """StateConflict when the question has an answer, or nobody waits for one any more."""
    if question.kind is not None:
        who = question.answered_by or "somebody"
        raise StateConflict(
            f"Question {question.id!r} was answered with {question.kind!r} by {who} already.",
            current_status=state.status,
            allowed_actions=allowed_actions(state),
        )
    if not state.waits_for_answer(question) or question.due_at <= now:
        raise StateConflict(
            f"Nobody waits for an answer to question {question.id!r} any more; the execution is "
            f"{state.status}.",
            current_status=state.status,
            allowed_actions=allowed_actions(state),
        )
