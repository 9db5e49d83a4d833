"""The engine inside a command: its settings, its start and stop, and what a failed start says."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from domain.json_values import Json
from interfaces.cli_failures import CommandFailed, ExitCode

if TYPE_CHECKING:  # half a second of imports that --help does not need
    from interfaces.bootstrap import Services, Settings

TABLES_SECONDS_MAX: Final = 2.0
"""How long a command waits at its end for the tables that it fills."""

CHECK_DATABASE: Final = "Check --database or FLOWLEDGER_DATABASE_URL"

_STORE_PACKAGES: Final = frozenset({"application", "psycopg", "sqlalchemy", "sqlite3"})
"""Where the errors of a store that does not answer come from."""

_REFUSALS: Final = {
    "UnsafeStore": ExitCode.NOT_READY,
    "UnknownProjection": ExitCode.NOT_FOUND,
    "RebuildTakenOver": ExitCode.CONFLICT,
    "LogDamaged": ExitCode.UNEXPECTED,
}


def read_settings(database: str | None, **given: Any) -> "Settings":  # values of any setting
    """Settings from the environment, and what the command line says instead (None: nothing)."""
    from pydantic import ValidationError

    from interfaces.bootstrap import Settings

    if database is not None:
        given["database_url"] = database_url(database)
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = "; ".join(
            ": ".join(filter(None, (_setting_name(each["loc"]), each["msg"])))
            for each in error.errors()
        )
        raise CommandFailed(
            ExitCode.INVALID,
            f"A setting is wrong: {lines}.",
            "docs/reference/settings.md lists every setting with its limits.",
        ) from None


def database_url(text: str) -> str:
    """A URL as it is; the name of a file as the URL of that SQLite file."""
    return text if "://" in text else f"sqlite:///{text}"


def shown_url(url: str) -> str:
    """The address of a database as people may see it: without a password, and without the query,
    which may hold one.
    """
    scheme, separator, rest = url.partition("?")[0].partition("://")
    login, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{login.partition(':')[0]}{at}{place}"


def schema_versions(settings: "Settings") -> tuple[str | None, str]:
    """The schema of the database (None: it has none yet) and that of this release."""
    from interfaces.bootstrap import migrate

    with start_failures(settings):
        return migrate.current(settings.database_url), migrate.head()


def migrate_store(settings: "Settings") -> None:
    """Bring the database to the schema of this release; creates an SQLite file."""
    from interfaces.bootstrap import migrate

    with start_failures(settings):
        migrate.upgrade(settings.database_url)


def check_definition(definition: Json) -> dict[str, Any]:
    """What `POST /workflows/validate` answers, of this process; no database is opened or made."""
    from interfaces.bootstrap import definition_check
    from interfaces.http.present import verdict_body

    settings = read_settings(None)
    with start_failures(settings):
        check = definition_check(settings)
    return verdict_body(check(definition))


@asynccontextmanager
async def open_engine(database: str | None, *, works: bool) -> "AsyncIterator[Services]":
    """The services on the embedded file until the block ends; they run executions if it `works`."""
    from interfaces.cli_logs import set_up_logs

    settings = read_settings(database, worker_slots=None if works else 0)
    # The command speaks for itself; what goes wrong in a step stands in the history.
    set_up_logs("critical", settings.log_format)
    services = await start(settings)
    try:
        yield services
    finally:
        await _let_tables_follow(services)
        await services.close()


async def _let_tables_follow(services: "Services") -> None:
    """Whoever looks next, with another command or with SQL, finds what this one did; unless it
    takes too long, and then later.
    """
    from application.ports import Overloaded, StoreUnavailable

    with suppress(StoreUnavailable, Overloaded):
        head = await services.store.log.head()
        await services.reads.wait_for(head, TABLES_SECONDS_MAX)


async def start(settings: "Settings") -> "Services":
    """`open_services`; raises `CommandFailed` when the start is refused."""
    from interfaces.bootstrap import open_services

    with start_failures(settings):
        return await open_services(settings)


@contextmanager
def start_failures(settings: "Settings") -> Iterator[None]:
    """Turn the refusals of the store and of settings into `CommandFailed`; defects pass."""
    try:
        yield
    except CommandFailed:
        raise
    except Exception as error:
        failure = _as_failure(error, settings.database_url)
        if failure is None:
            raise
        raise failure from error


def _as_failure(error: Exception, database: str) -> CommandFailed | None:
    """Told by where the error's class lives, as this layer imports neither SQL nor effects."""
    package = type(error).__module__.partition(".")[0]
    first_line = (str(error) or type(error).__name__).strip().partition("\n")[0]
    if package in _STORE_PACKAGES or isinstance(error, OSError):
        return CommandFailed(
            ExitCode.NOT_READY,
            f"The database {shown_url(database)} cannot be used: {first_line}.",
            f"{CHECK_DATABASE}; `flowledger doctor` looks closer.",
        )
    if (code := _REFUSALS.get(type(error).__name__)) is not None:
        return CommandFailed(code, str(error))
    if package == "infrastructure" or isinstance(error, ValueError):
        return CommandFailed(ExitCode.INVALID, str(error))
    return None


def _setting_name(location: tuple[int | str, ...]) -> str:
    """Empty for what is wrong with several together."""
    return f"FLOWLEDGER_{'_'.join(map(str, location)).upper()}" if location else ""
