"""Commands about executions: execute, watch, list, the verbs, history, diagram, explain."""

from pathlib import Path
from typing import Annotated, Any

import typer

from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_input import read_input, read_labels, read_value
from interfaces.cli_options import with_session, with_target
from interfaces.cli_output import (
    short_duration,
    short_time,
    write_error,
    write_json,
    write_line,
    write_table,
)
from interfaces.cli_recovery import (
    AlternativeFlows,
    AtomicMode,
    MaxRecoveryTime,
    Recovery,
    RetryAttempts,
    UserFulfillment,
    recovery_settings,
)
from interfaces.cli_session import TERMINAL, Body, Session, Target, keyed, open_session, segment
from interfaces.cli_story import sentence
from interfaces.cli_watch import new_events, require_success, watch_to_end, write_execution

ExecutionRef = Annotated[
    str, typer.Argument(metavar="EXECUTION", help="Its id, `run-<id>`, or your own text for it.")
]
Reason = Annotated[str | None, typer.Option(help="Why; it stands in the history.")]
Key = Annotated[
    str | None, typer.Option(help="Idempotency-Key: the same key again gives the same answer.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Wait for the end and tell what happens.")]


@with_session
async def execute(
    session: Session,
    workflow: Annotated[str, typer.Argument(help="A workflow's name, `wf-<name>-<n>` or id.")],
    input_data: Annotated[
        str | None,
        typer.Option("--input", metavar="JSON", help="A JSON object, @FILE (JSON, YAML) or -."),
    ] = None,
    version: Annotated[int | None, typer.Option(help="Version to run; default the newest.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 (first) to 9; default 5.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, any number.")] = None,
    start_at: Annotated[str | None, typer.Option(help="RFC 3339 time to start at.")] = None,
    delay: Annotated[float | None, typer.Option(help="Seconds to wait before the start.")] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Call nothing outside.")] = False,
    atomic_mode: AtomicMode = None,
    recovery: Recovery = None,
    max_recovery_time_ms: MaxRecoveryTime = None,
    enable_alternative_flows: AlternativeFlows = None,
    enable_user_fulfillment: UserFulfillment = None,
    retry_attempts: RetryAttempts = None,
    key: Key = None,
    watch: Watch = False,
) -> None:
    """Run a workflow.

    With --watch it waits for the end, and the exit code is 0 only for COMPLETED. Without --url and
    --watch the execution is recorded, and goes on when a server or `watch` works on the file.
    """
    body: Body = {"input_data": read_input(input_data)}
    given = {
        "priority": priority,
        "labels": read_labels(label or ()),
        "start_at": start_at,
        "delay_seconds": delay,
        "simulate": simulate or None,
        "atomic_mode": atomic_mode,
        "recovery": recovery_settings(
            recovery=recovery,
            max_recovery_time_ms=max_recovery_time_ms,
            enable_alternative_flows=enable_alternative_flows,
            enable_user_fulfillment=enable_user_fulfillment,
            retry_attempts=retry_attempts,
        ),
    }
    body |= {name: value for name, value in given.items() if value is not None}
    path = f"/workflows/{segment(workflow)}/execute"
    answer = await session.post(path, body, {"version": version}, keyed(key))
    await present(session, answer.body, watch=watch)


@with_target
async def watch(target: Target, execution: ExecutionRef) -> None:
    """Wait until an execution has ended.

    The exit code is 0 only for COMPLETED. Without --url it runs what is due on the file meanwhile.
    """
    async with open_session(target, works=True) as session:
        view = await watch_to_end(session, execution)
        _write(session, view)
        require_success(view)


@with_session
async def list_executions(
    session: Session,
    status: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only of this workflow.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only with NAME=VALUE.")] = None,
    page: Annotated[int, typer.Option(min=1)] = 1,
    page_size: Annotated[int, typer.Option("--limit", min=1, max=200, help="Rows.")] = 20,
) -> None:
    """List executions, newest first."""
    query: Body = {
        "status": [each.upper() for each in status or ()],
        "workflow_id": workflow,
        "page": page,
        "page_size": page_size,
        **{f"label.{name}": value for name, value in read_labels(label or ()).items()},
    }
    found = (await session.get("/executions", query)).body
    if session.as_json:
        write_json(found)
        return
    columns = ("EXECUTION", "WORKFLOW", "STATUS", "STEPS", "CREATED", "TOOK")
    write_table(columns, [_row(view) for view in found["items"]])
    write_line(f"{len(found['items'])} of {found['total']}")


@with_session
async def cancel(
    session: Session, execution: ExecutionRef, reason: Reason = None, key: Key = None
) -> None:
    """Stop an execution."""
    body = {"reason": reason} if reason else {}
    view = await command(session, execution, "cancel", body, key)
    await present(session, view, watch=False)


@with_session
async def retry(
    session: Session,
    execution: ExecutionRef,
    from_step: Annotated[
        str | None,
        typer.Option("--from-step", "--from", help="Step to run again, with all after it."),
    ] = None,
    reason: Reason = None,
    key: Key = None,
    watch: Watch = False,
) -> None:
    """Reopen a FAILED or CANCELLED execution.

    Steps that are done do not run again, unless --from-step names one.
    """
    body = {"resume_from_step": from_step, "reason": reason}
    given = {name: value for name, value in body.items() if value is not None}
    view = await command(session, execution, "retry", given, key)
    await present(session, view, watch=watch)


@with_session
async def history(
    session: Session,
    execution: ExecutionRef,
    after_version: Annotated[int, typer.Option("--after", min=0, help="Skip up to this.")] = 0,
) -> None:
    """Tell what happened, event by event."""
    events = [event async for event in new_events(session, execution, after_version)]
    if session.as_json:
        write_json({"items": events})
        return
    rows = [
        (event["version"], short_time(event["recorded_at"]), event["actor"], sentence(event))
        for event in events
    ]
    write_table(("VERSION", "TIME", "BY", "WHAT HAPPENED"), rows)


@with_session
async def diagram(
    session: Session,
    reference: Annotated[str, typer.Argument(help="An execution, or with --workflow a workflow.")],
    of_workflow: Annotated[
        bool, typer.Option("--workflow", help="REFERENCE names a workflow.")
    ] = False,
    form: Annotated[str, typer.Option("--format", help="mermaid, dot, svg or json.")] = "mermaid",
    output: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> None:
    """Draw an execution or a workflow."""
    kind = "workflows" if of_workflow else "executions"
    wanted = "json" if session.as_json else form
    answer = await session.get(f"/{kind}/{segment(reference)}/diagram", {"format": wanted})
    if output is not None:
        try:
            output.write_text(_text(answer.body), "utf-8")
        except OSError as error:
            message = f"{output} cannot be written: {error.strerror}."
            raise CommandFailed(ExitCode.INVALID, message) from None
        write_error(f"Written to {output}.")
    elif wanted == "json":
        write_json(answer.body)
    else:
        write_line(_text(answer.body).rstrip("\n"))


@with_session
async def signal(
    session: Session,
    execution: ExecutionRef,
    name: Annotated[str, typer.Argument(help="What the step waits for.")],
    payload: Annotated[
        str | None, typer.Option(metavar="JSON", help="Any JSON, @FILE (JSON, YAML) or -.")
    ] = None,
    key: Key = None,
) -> None:
    """Send a signal to a step that waits for it, now or later."""
    body: Body = {"payload": None if payload is None else read_value(payload, "--payload")}
    view = await command(session, execution, f"signals/{segment(name)}", body, key)
    await present(session, view, watch=False)


@with_session
async def explain(session: Session, execution: ExecutionRef) -> None:
    """Say why an execution does not move.

    Also what each verb would do to it now.
    """
    told = (await session.get(f"/executions/{segment(execution)}/explain")).body
    if session.as_json:
        write_json(told)
        return
    write_line(told["summary"])
    if told["why_not_moving"]:
        write_line(told["why_not_moving"])
    for waiting in told["waiting_on"]:
        write_line(waiting["sentence"])
    for verb in told["verbs"]:
        write_line(f"{verb['verb']}: {verb['effect']}")


async def command(session: Session, execution: str, verb: str, body: Body, key: str | None) -> Body:
    """Send a command; returns the execution as it is then."""
    path = f"/executions/{segment(execution)}/{verb}"
    answer = await session.post(path, body, headers=keyed(key))
    view: Body = answer.body
    return view


async def present(session: Session, view: Body, *, watch: bool) -> None:
    """Write an execution; with `watch` once it has ended, telling what happens until then."""
    if watch:
        view = await watch_to_end(session, view["id"])
    _write(session, view)
    if watch:
        require_success(view)
    elif session.is_embedded and view["status"] not in TERMINAL:
        write_error(
            f"It is recorded. It goes on while `flowledger watch {view['id']}` or "
            "`flowledger serve` runs on this file."
        )


def _write(session: Session, view: Body) -> None:
    if session.as_json:
        write_json(view)
    else:
        write_execution(view)


def _row(view: Body) -> tuple[Any, ...]:  # cells are JSON values
    progress = view["progress"]
    return (
        view["id"],
        f"{view['workflow_name']} v{view['workflow_version']}",
        view["status"],
        f"{progress['done']}/{progress['total']}",
        short_time(view["created_at"]),
        short_duration(view["duration_ms"]),
    )


def _text(body: Any) -> str:  # JSON or text, as the server sent it
    import json

    return body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
