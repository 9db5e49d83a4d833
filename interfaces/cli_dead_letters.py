"""Commands about messages that could not be taken: dead-letters list, show, replay, discard."""

from typing import Annotated

import typer

from interfaces.cli_options import with_session
from interfaces.cli_output import (
    short_time,
    write_error,
    write_fields,
    write_json,
    write_line,
    write_table,
)
from interfaces.cli_session import Body, Session, segment

dead_letters_app = typer.Typer(
    no_args_is_help=True, help="Messages that could not be taken, or not be sent."
)

Letters = Annotated[list[str], typer.Argument(metavar="ID...", help="As listed.")]
_COLUMNS = ("RECEIVED", "STATUS", "TOPIC", "PARTITION", "OFFSET", "KEY", "ID", "CAUSE")


@dead_letters_app.command("list")
@with_session
async def list_letters(
    session: Session,
    every: Annotated[
        bool, typer.Option("--all", help="Those that were replayed or discarded, too.")
    ] = False,
    topic: Annotated[str | None, typer.Option(help="Only of this topic.")] = None,
    page: Annotated[int, typer.Option(min=1)] = 1,
    page_size: Annotated[int, typer.Option("--limit", min=1, max=200, help="Rows.")] = 20,
) -> None:
    """Show what waits for a decision, the newest first."""
    status = None if every else "OPEN"
    query = {"status": status, "topic": topic, "page": page, "page_size": page_size}
    found = (await session.get("/dead-letters", query)).body
    if session.as_json:
        write_json(found)
        return
    write_table(
        _COLUMNS,
        [
            (
                short_time(each["received_at"]),
                *(each[name] for name in ("status", "topic", "partition", "offset", "key", "id")),
                each["cause"][:100],
            )
            for each in found["items"]
        ],
    )
    write_line(f"{len(found['items'])} of {found['total']}")
    if found["items"]:
        write_error(f"Read one with: flowledger dead-letters show {found['items'][0]['id']}")


@dead_letters_app.command("show")
@with_session
async def show(
    session: Session, letter: Annotated[str, typer.Argument(metavar="ID", help="As listed.")]
) -> None:
    """Show one in full."""
    found = (await session.get(f"/dead-letters/{segment(letter)}")).body
    if session.as_json:
        write_json(found)
        return
    write_fields(
        [
            ("id", found["id"]),
            ("status", found["status"]),
            ("from", f"{found['topic']} [{found['partition']}] at {found['offset']}"),
            ("received", short_time(found["received_at"])),
            ("sent again", short_time(found["replayed_at"])),
            ("cause", found["cause"]),
            ("key", found["key"]),
            *((f"header {name}", value) for name, value in found["headers"].items()),
        ]
    )
    write_line(found["value"])


@dead_letters_app.command("replay")
@with_session
async def replay(session: Session, letters: Letters) -> None:
    """Send messages to their topics again, after what was wrong has been put right."""
    await _settle(session, letters, "replay")


@dead_letters_app.command("discard")
@with_session
async def discard(session: Session, letters: Letters) -> None:
    """Put messages away that are of no use; they stay readable."""
    await _settle(session, letters, "discard")


async def _settle(session: Session, letters: list[str], verb: str) -> None:
    """One after the other; the first refusal ends the command."""
    settled: list[Body] = []
    for letter in letters:
        answer = await session.post(f"/dead-letters/{segment(letter)}/{verb}", {})
        settled.append(answer.body)
        if not session.as_json:
            write_line(f"{answer.body['id']}: {answer.body['status']}")
    if session.as_json:
        write_json({"items": settled})
