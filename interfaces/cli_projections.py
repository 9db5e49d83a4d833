"""Commands about the SQL tables: projections status, verify, rebuild.

`verify` and `rebuild` work on the database itself, with or without a running server.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interfaces.cli_engine import read_settings, start_failures
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_options import AsJson, Database, with_session
from interfaces.cli_output import progress_bar, write_json, write_line, write_table
from interfaces.cli_session import Session

if TYPE_CHECKING:  # half a second of imports that --help does not need
    from interfaces.bootstrap import Verdict

projections_app = typer.Typer(no_args_is_help=True, help="Check or rebuild the SQL tables.")


@projections_app.command("status")
@with_session
async def status(session: Session) -> None:
    """Show how far each projection is behind the log."""
    found = (await session.get("/projections")).body
    if session.as_json:
        write_json(found)
        return
    columns = ("PROJECTION", "STATE", "POSITION", "HEAD", "BEHIND", "SECONDS", "LAST ERROR")
    names = ("name", "state", "position", "head", "lag_events", "lag_seconds", "last_error")
    write_table(columns, [[each[name] for name in names] for each in found["items"]])


@projections_app.command("verify")
def verify(
    name: Annotated[str, typer.Argument(help="A projection, or all.")] = "all",
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Compare tables with the log, row by row.

    The exit code is 1 when there is a difference, of which the first one of each table is named,
    or when an event of the log is missing or damaged.
    """
    from interfaces.bootstrap import verify_projections
    from interfaces.garbage_collection import tune_process

    settings = read_settings(database)
    tune_process()
    with start_failures(settings), progress_bar("verify", silent=as_json) as report:
        verdicts = asyncio.run(verify_projections(settings, name, report))
    # Most tables come of the same streams.
    damages = dict.fromkeys(str(each) for verdict in verdicts for each in verdict.damages)
    if as_json:
        write_json([_verdict_body(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            write_line(f"{verdict.name}: {_seen(verdict)}")
        for damage in damages:
            write_line(f"log: {damage}")
    if damages:
        raise _damaged(len(damages))
    wrong = [verdict.name for verdict in verdicts if verdict.difference is not None]
    if wrong:
        raise _not_equal(wrong)


def _verdict_body(verdict: "Verdict") -> dict[str, Any]:
    return {
        "projection": verdict.name,
        "position": verdict.position,
        "lag_events": verdict.lag_events,
        "rows": verdict.rows,
        "difference": None if verdict.difference is None else str(verdict.difference),
        "compared": verdict.compared,
        "damages": [str(each) for each in verdict.damages],
    }


def _seen(verdict: "Verdict") -> str:
    if not verdict.compared:
        return "not compared, as it sums up what is damaged in the log"
    found = str(verdict.difference or f"equal, {verdict.rows} rows at position {verdict.position}")
    if verdict.damages:
        found += f", without {len(verdict.damages)} that are damaged in the log"
    waiting = verdict.lag_events
    return f"{found}; {waiting} events are not in the table yet" if waiting else found


def _damaged(count: int) -> CommandFailed:
    return CommandFailed(
        ExitCode.UNSUCCESSFUL,
        f"The log is damaged in {count} place{'s' if count > 1 else ''}; what the same execution,"
        " workflow or agent has after it was not looked at.",
        "Compare the log with a backup, and restore it from there:"
        " docs/how-to/back-up-and-restore.md. Rebuild no table before that.",
    )


def _not_equal(names: Sequence[str]) -> CommandFailed:
    """A table that was not changed may be all that still tells what the log said."""
    rebuilds = ", ".join(f"`flowledger projections rebuild {name}`" for name in names)
    return CommandFailed(
        ExitCode.UNSUCCESSFUL,
        f"Not what the log says: {', '.join(names)}. Either the table or the log was changed.",
        "Compare both with a backup first: a rebuild removes what the table still tells of a log"
        f" that was changed. If the log is sound, {rebuilds} makes the table anew from it.",
    )


@projections_app.command("rebuild")
def rebuild(
    name: Annotated[str, typer.Argument(help="A projection, or all.")],
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Make a table anew from the log, beside the live one.

    Readers see the old table until the new one has caught up; then they are switched at once.
    """
    from interfaces.bootstrap import rebuild_projection
    from interfaces.garbage_collection import tune_process

    settings = read_settings(database)
    tune_process()
    with start_failures(settings), progress_bar(f"rebuild {name}", silent=as_json) as report:
        position = asyncio.run(rebuild_projection(settings, name, report))
    if as_json:
        write_json({"projection": name, "position": position})
    else:
        write_line(f"Rebuilt {name}: it holds every event up to position {position}.")
