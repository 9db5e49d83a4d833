"""`questions`: a row per question about a failed step."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from application.question_views import QuestionView, question_view, status_of_question
from infrastructure.projections.asked_people import changed
from infrastructure.projections.folding import EXECUTIONS, Batch
from infrastructure.projections.tables import Index, ProjectedTable


class QuestionRow(Struct, frozen=True, gc=False):
    """The row: `QuestionView`, flat."""

    run_id: str
    question_id: str
    workflow_name: str
    step_id: str
    path: str
    attempt: int
    status: str
    options: Sequence[str]
    texts: Sequence[str]
    asked_at: datetime
    due_at: datetime
    on_timeout: str
    answered_at: datetime | None
    answered_by: str | None
    answer: str | None
    kind: str | None
    alternative: str | None
    read_as: str | None
    workspace_id: str


_FIELDS: Final = QuestionRow.__struct_fields__

TABLE: Final = ProjectedTable(
    name="questions",
    version=1,
    row=QuestionRow,
    key=("run_id", "question_id"),
    stream="run_id",
    json=frozenset({"options", "texts"}),
    public=("question_id", "run_id", ("execution_id", "substr(run_id, 5)"), *_FIELDS[2:]),
    indexes=(Index("open", "workspace_id, status, asked_at, question_id"),),
)


class Questions:
    """The projection: the questions whose row the batch changed."""

    table = TABLE
    streams = EXECUTIONS
    details = False

    def rows(self, batch: Batch) -> list[QuestionRow]:
        """See Projection."""
        return [
            _row(question_view(change.after, question), change.after.workspace_id)
            for change in batch.executions
            if change.after.questions
            for question in changed(change, lambda state: state.questions, status_of_question)
        ]


def _row(view: QuestionView, workspace_id: str) -> QuestionRow:
    return QuestionRow(
        run_id=f"run-{view.execution_id}",
        question_id=view.question_id,
        workflow_name=view.workflow_name,
        step_id=view.step_id,
        path=view.path,
        attempt=view.attempt,
        status=view.status,
        options=view.options,
        texts=view.questions,
        asked_at=view.asked_at,
        due_at=view.due_at,
        on_timeout=view.on_timeout,
        answered_at=view.answered_at,
        answered_by=view.answered_by,
        answer=view.answer,
        kind=view.kind,
        alternative=view.alternative,
        read_as=view.read_as,
        workspace_id=workspace_id,
    )


def listed_question(row: Mapping[str, Any]) -> QuestionView:
    """A selected row as callers see it."""
    renamed = {"execution_id", "questions"}
    names = (name for name in QuestionView.__slots__ if name not in renamed)
    return QuestionView(
        execution_id=row["run_id"].removeprefix("run-"),
        questions=row["texts"],
        **{name: row[name] for name in names},
    )
