"""Follows one execution to its end: every event as a line, and a bar on a terminal."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_output import console, short_duration, visible, write_error, write_fields
from interfaces.cli_session import TERMINAL, Body, Session, segment
from interfaces.cli_story import sentence

if TYPE_CHECKING:
    from rich.progress import Progress

_WAIT_SECONDS = 10
_EVENTS_PAGE = 100

Report = Callable[[Body, list[Body]], None]
"""Called with the execution and the events since the last call."""


async def follow(session: Session, execution: str, report: Report) -> Body:
    """Report every change until the execution has ended; returns its last representation."""
    path = f"/executions/{segment(execution)}"
    answer = await session.get(path)
    view: Body = answer.body
    seen = 0
    while True:
        events = [event async for event in new_events(session, view["id"], seen)]
        seen = events[-1]["version"] if events else seen
        report(view, events)
        # The events may be newer than the view; it has ended only when the view says so.
        if view["status"] in TERMINAL and seen >= view["version"]:
            return view
        headers = {"If-None-Match": f'"{view["version"]}"', "Prefer": f"wait={_WAIT_SECONDS}"}
        answer = await session.get(path, headers=headers)
        if answer.status != 304:
            view = answer.body


async def new_events(session: Session, execution: str, after_version: int) -> AsyncIterator[Body]:
    """The events of an execution after a version, page by page."""
    after: int | None = after_version
    while after is not None:
        query = {"after_version": after, "limit": _EVENTS_PAGE}
        answer = await session.get(f"/executions/{segment(execution)}/events", query)
        for event in answer.body["items"]:
            yield event
        after = answer.body["next_after"]


async def watch_to_end(session: Session, execution: str) -> Body:
    """`follow`, told on stderr: a bar on a terminal, lines elsewhere, nothing with --json."""
    if session.as_json:
        return await follow(session, execution, lambda view, events: None)
    with _reporter() as report:
        return await follow(session, execution, report)


@contextmanager
def _reporter() -> Iterator[Report]:
    if not sys.stderr.isatty():
        yield _tell
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[status]}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task("", total=1, status="PENDING", detail="")
        yield lambda view, events: _draw(bar, task, view, events)


def _tell(view: Body, events: list[Body]) -> None:
    for event in events:
        write_error(f"  {sentence(event)}")


def _draw(bar: "Progress", task: object, view: Body, events: list[Body]) -> None:
    for event in events:
        bar.console.print(f"  {visible(sentence(event))}", markup=False)
    progress = view["progress"]
    bar.update(
        task,  # type: ignore[arg-type]  # rich's TaskID, an int made by add_task
        total=max(progress["total"], 1),
        completed=progress["total"] * progress["percentage"] / 100,
        status=view["status"],
        detail=visible(_detail(view)),
    )


def _detail(view: Body) -> str:
    progress = view["progress"]
    text = f"{progress['done']} of {progress['total']} steps"
    waits = ", ".join(f"{wait['path'] or 'start'} ({wait['kind']})" for wait in view["waiting_on"])
    return f"{text}  {waits}" if waits else text


def write_execution(view: Body) -> None:
    """An execution in full, for people."""
    progress, error = view["progress"], view.get("error") or {}
    done = f"{progress['done']} done, {progress['failed']} failed, {progress['skipped']} skipped"
    status = view["status"]
    if status == "RUNNING" and view.get("sub_status"):
        status = f"{status} / {view['sub_status']}"
    waits = [_wait_text(wait) for wait in view["waiting_on"]]
    write_fields(
        [
            ("execution", view["id"]),
            ("workflow", f"{view['workflow_name']} version {view['workflow_version']}"),
            ("status", status + (" (in part)" if view.get("partial") else "")),
            ("attempt", view["attempt"]),
            ("steps", f"{progress['total']}: {done}"),
            ("waiting for", "; ".join(waits)),
            ("requested by", view["triggered_by"]),
            ("took", short_duration(view.get("duration_ms"))),
            ("error", view.get("error_message") or error.get("message")),
            ("failed step", error.get("path")),
            ("output", view.get("output")),
            ("forked from", _origin(view)),
            ("possible now", ", ".join(view["allowed_actions"])),
        ]
    )


def _origin(view: Body) -> str | None:
    origin = view.get("forked_from")
    return f"{origin['execution_id']} at {origin['from_step']}" if origin else None


def _wait_text(wait: Body) -> str:
    until = f" until {wait['until']}" if wait.get("until") else ""
    return f"{wait['kind']} {wait['path']}".strip().replace("_", " ") + until


def require_success(view: Body) -> None:
    """Raises `CommandFailed` with exit code 1 for an execution that did not complete."""
    if view["status"] != "COMPLETED":
        message = f"execution {view['id']} ended {view['status']}"
        reason = view.get("error_message")
        raise CommandFailed(
            ExitCode.UNSUCCESSFUL,
            f"{message}: {reason}" if reason else f"{message}.",
            f"`flowledger history {view['id']}` tells what happened; "
            f"`flowledger retry {view['id']}` runs it from the failed step.",
        )
