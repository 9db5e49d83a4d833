"""The options that all talking commands share, and what happens around each of them."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_session import Session, Target, open_session

P = ParamSpec("P")

Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="sqlite:///file.db, postgresql://... or a file; default FLOWLEDGER_DATABASE_URL, "
        "else flowledger.db here.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Url = Annotated[
    str | None,
    typer.Option(
        envvar="FLOWLEDGER_URL",
        help="Address of a server; without it the command works on the embedded file.",
    ),
]
Actor = Annotated[
    str | None, typer.Option(help="Who asks, as it stands in the history; default anonymous.")
]

_SHARED = (
    ("url", Url, None),
    ("database", Database, None),
    ("actor", Actor, None),
    ("as_json", AsJson, False),
)


def with_session(
    command: Callable[Concatenate[Session, P], Awaitable[None]],
) -> Callable[..., None]:
    """Make `async command(session, ...)` a command with the shared options added to its own.

    With --watch, if it has that, it runs executions of the embedded file meanwhile.
    """

    @wraps(command)
    async def in_session(target: Target, /, *_: P.args, **given: P.kwargs) -> None:
        async with open_session(target, works=given.get("watch") is True) as session:
            await command(session, **given)  # type: ignore[call-arg]  # typer built `given`

    return with_target(in_session)


def with_target(
    command: Callable[Concatenate[Target, P], Awaitable[None]],
) -> Callable[..., None]:
    """The same for `async command(target, ...)`, which opens its session itself, or none."""

    @wraps(command)
    def run(
        *,
        url: str | None,
        database: str | None,
        actor: str | None,
        as_json: bool,
        **given: Any,  # the command's own parameters, checked by typer
    ) -> None:
        if url is not None and database is not None:
            message = "--url names a server, which has its own database; leave --database out."
            raise CommandFailed(ExitCode.INVALID, message)

        async def called() -> None:
            target = Target(url, database, actor, as_json)
            await command(target, **given)  # type: ignore[call-arg]  # typer built `given`

        asyncio.run(called())

    own = list(inspect.signature(command).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(name, keyword, default=default, annotation=annotation)
        for name, annotation, default in _SHARED
    ]
    parameters = [each.replace(kind=keyword) for each in own] + shared
    # typer reads both; `wraps` has left the command's own ones here.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
