"""Commands of operators: pause, resume, fork, skip, complete."""

from typing import Annotated

import typer

from interfaces.cli_executions import ExecutionRef, Key, Reason, Watch, command, present
from interfaces.cli_input import read_input, read_value
from interfaces.cli_options import with_session
from interfaces.cli_session import Body, Session

StepPath = Annotated[
    str, typer.Argument(metavar="PATH", help="The step's path, as `pay` or `each[3]/pay`.")
]
Why = Annotated[str, typer.Option("--reason", help="Why; it stands in the history.")]


@with_session
async def pause(
    session: Session,
    execution: ExecutionRef,
    max_seconds: Annotated[
        float | None,
        typer.Option("--max-duration", help="Seconds; after them the execution fails."),
    ] = None,
    reason: Reason = None,
    key: Key = None,
) -> None:
    """Begin nothing new until it is resumed.

    What is in flight goes on and is recorded.
    """
    body = _given({"max_pause_duration_seconds": max_seconds, "reason": reason})
    await present(session, await command(session, execution, "pause", body, key), watch=False)


@with_session
async def resume(
    session: Session,
    execution: ExecutionRef,
    reason: Reason = None,
    key: Key = None,
    watch: Watch = False,
) -> None:
    """Go on with a paused execution."""
    view = await command(session, execution, "resume", _given({"reason": reason}), key)
    await present(session, view, watch=watch)


@with_session
async def fork(
    session: Session,
    execution: ExecutionRef,
    from_step: Annotated[
        str, typer.Option("--from-step", help="Step to run first, with all after it.")
    ],
    input_data: Annotated[
        str | None,
        typer.Option("--input", metavar="JSON", help="Another input: JSON object, @FILE or -."),
    ] = None,
    reason: Reason = None,
    key: Key = None,
    watch: Watch = False,
) -> None:
    """Run a new execution from a step on.

    It has what the first one has finished before that step; the first one stays as it is.
    """
    given = None if input_data is None else read_input(input_data)
    body = _given({"from_step": from_step, "input_data": given, "reason": reason})
    view = await command(session, execution, "fork", body, key)
    await present(session, view, watch=watch)


@with_session
async def skip(
    session: Session,
    execution: ExecutionRef,
    path: StepPath,
    reason: Why,
    key: Key = None,
    watch: Watch = False,
) -> None:
    """End a stuck step without an output; what runs there is interrupted."""
    body: Body = {"path": path, "reason": reason}
    view = await command(session, execution, "steps/skip", body, key)
    await present(session, view, watch=watch)


@with_session
async def complete(
    session: Session,
    execution: ExecutionRef,
    path: StepPath,
    reason: Why,
    output: Annotated[
        str | None, typer.Option(metavar="JSON", help="What later steps see of it: JSON or @FILE.")
    ] = None,
    key: Key = None,
    watch: Watch = False,
) -> None:
    """End a stuck step whose work was done otherwise."""
    body: Body = {"path": path, "reason": reason}
    if output is not None:
        body["output"] = read_value(output, "--output")
    view = await command(session, execution, "steps/complete", body, key)
    await present(session, view, watch=watch)


def _given(fields: Body) -> Body:
    return {name: value for name, value in fields.items() if value is not None}
