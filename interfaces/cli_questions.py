"""Commands about questions that a recovery asks a person: questions, answer."""

from typing import Annotated, Any

import typer

from interfaces.cli_executions import ExecutionRef, Key, Reason, Watch, present
from interfaces.cli_options import with_session
from interfaces.cli_output import (
    short_time,
    write_error,
    write_fields,
    write_json,
    write_line,
    write_table,
)
from interfaces.cli_session import Body, Session, keyed, segment

_COLUMNS = ("ASKED", "UNTIL", "STATUS", "WORKFLOW", "STEP", "EXECUTION", "QUESTION")


@with_session
async def questions(
    session: Session,
    execution: Annotated[
        str | None, typer.Argument(metavar="[EXECUTION]", help="Only of this one, in full.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Those that are settled, too (always with EXECUTION).")
    ] = False,
    page: Annotated[int, typer.Option(min=1)] = 1,
    page_size: Annotated[int, typer.Option("--limit", min=1, max=200, help="Rows.")] = 20,
) -> None:
    """Show what people are asked about failed steps, the longest waiting first."""
    if execution is not None:
        found = (await session.get(f"/executions/{segment(execution)}/questions")).body
    else:
        status = None if every else "OPEN"
        query = {"status": status, "page": page, "page_size": page_size}
        found = (await session.get("/questions", query)).body
    if session.as_json:
        write_json(found)
    elif execution is None:
        write_table(_COLUMNS, [_row(question) for question in found["items"]])
        write_line(f"{len(found['items'])} of {found['total']}")
    else:
        _write_in_full(found["items"])


@with_session
async def answer(
    session: Session,
    execution: ExecutionRef,
    answer: Annotated[
        str,
        typer.Argument(
            metavar="ANSWER",
            help="retry, skip, abort, alternative:ID, or words that say one of them.",
        ),
    ],
    question: Annotated[
        str | None, typer.Option(metavar="ID", help="Which one, where several are open.")
    ] = None,
    reason: Reason = None,
    key: Key = None,
    watch: Watch = False,
) -> None:
    """Answer a question about a failed step.

    Each is answered once; the execution goes on as the answer says.
    """
    given = {"answer": answer, "question_id": question, "reason": reason}
    body: Body = {name: value for name, value in given.items() if value is not None}
    path = f"/executions/{segment(execution)}/answers"
    view = (await session.post(path, body, headers=keyed(key))).body
    await present(session, view, watch=watch)


def _row(question: Body) -> tuple[Any, ...]:  # cells are JSON values
    return (
        short_time(question["asked_at"]),
        short_time(question["due_at"]),
        question["status"],
        question["workflow_name"],
        question["path"],
        question["execution_id"],
        question["question_id"],
    )


def _write_in_full(items: list[Body]) -> None:
    for question in items:
        settled = question["kind"] and f"{question['kind']} ({question['read_as']})"
        write_fields(
            [
                ("question", question["question_id"]),
                ("status", question["status"]),
                ("step", question["path"]),
                ("asked", short_time(question["asked_at"])),
                ("until", f"{short_time(question['due_at'])}, then {question['on_timeout']}"),
                ("taken for", settled),
                ("answered by", question["answered_by"]),
            ]
        )
        for text in question["questions"]:
            write_line(f"  {text}")
        write_line(f"  Answers: {', '.join(question['options'])}")
        write_line()
    waiting = [question for question in items if question["status"] == "OPEN"]
    if waiting:
        execution = waiting[0]["execution_id"]
        write_error(f"Answer with: flowledger answer {execution} {waiting[0]['options'][0]}")
    elif not items:
        write_line("Nobody was asked.")
