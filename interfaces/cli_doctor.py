"""What `flowledger doctor` looks at, from the packages to a write; for each fault what to do."""

import importlib.util
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from application.callers import DEFAULT_WORKSPACE
from application.ports import StoreUnavailable
from application.stuck import why_not_moving
from interfaces.cli_engine import (
    CHECK_DATABASE,
    read_settings,
    schema_versions,
    shown_url,
    start,
)
from interfaces.cli_failures import CommandFailed

if TYPE_CHECKING:
    from interfaces.bootstrap import Services, Settings

_PACKAGES: Final = ("domain", "application", "infrastructure", "interfaces")
_WAITING_SECONDS_MAX: Final = 60
_NAMED_MAX: Final = 5
_AGENTS_PER_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was seen, and for a fault what to do."""

    check: str
    ok: bool
    seen: str
    advice: str = ""


async def examine(database: str | None) -> AsyncIterator[Finding]:
    """Every check in order; ends early when a later one could not be made."""
    yield packages()
    try:
        settings = read_settings(database)
    except CommandFailed as failed:
        yield Finding("settings", False, failed.message, failed.next_step)
        return
    yield Finding("settings", True, f"the ledger is {shown_url(settings.database_url)}")
    missing = _missing_file(settings.database_url)
    if missing is not None:
        yield missing
        return
    async for finding in _examine_store(settings):
        yield finding


def packages() -> Finding:
    """Other distributions also ship packages of these names; ours must be the ones found."""
    ours = Path(__file__).resolve().parent.parent
    foreign = []
    for name in _PACKAGES:
        found = importlib.util.find_spec(name)
        origin = found.origin if found is not None else None
        if origin is None or Path(origin).resolve().parent.parent != ours:
            foreign.append(f"{name} ({origin})")
    if foreign:
        advice = "Install flowledger into an environment of its own (a venv, or pipx)."
        return Finding("packages", False, f"not ours: {', '.join(foreign)}", advice)
    return Finding("packages", True, f"all from {ours}")


def _missing_file(url: str) -> Finding | None:
    """A look must not create the file."""
    path = url.removeprefix("sqlite:///")
    if path == url or Path(path).exists():
        return None
    seen = f"the file {path} does not exist yet"
    if Path(path).absolute().parent.is_dir():
        return Finding("database", True, f"{seen}; `flowledger serve` makes it")
    return Finding("database", False, f"{seen}, nor its folder", "Make the folder.")


async def _examine_store(settings: "Settings") -> AsyncIterator[Finding]:
    try:
        present, newest = schema_versions(settings)
    except CommandFailed as failed:
        yield Finding("database", False, failed.message, _advice(failed))
        return
    yield Finding("database", True, "answers")
    if present != newest:
        seen = f"schema {present or 'none'}, this release needs {newest}"
        yield Finding("schema", False, seen, "Run `flowledger migrate`.")
        return
    yield Finding("schema", True, f"{newest}, the newest")
    async with AsyncExitStack() as stack:
        try:
            # Without slots: a look must not run anybody's work.
            services = await start(settings.model_copy(update={"worker_slots": 0}))
        except CommandFailed as failed:
            yield Finding("start", False, failed.message, _advice(failed))
            return
        stack.push_async_callback(services.close)
        yield Finding("durability", True, "what is acknowledged survives a crash")
        yield await _write(services)
        yield await _queue(services)
        yield await _stuck(services)
        yield await _agents(services)
        for projection in await services.reads.projections():
            ok = projection.last_error is None
            yield Finding(
                f"table {projection.name}",
                ok,
                f"{projection.state}, {projection.lag_events} events behind"
                + ("" if ok else f": {projection.last_error}"),
                "" if ok else f"Run `flowledger projections rebuild {projection.name}`.",
            )


def _advice(failed: CommandFailed) -> str:
    """What a failed start advises, but nobody is sent here again."""
    if failed.next_step.startswith(CHECK_DATABASE):
        return (
            f"{CHECK_DATABASE}: it names an SQLite file of Flowledger in a folder that can be "
            "written, or a PostgreSQL server that answers."
        )
    return failed.next_step


async def _write(services: "Services") -> Finding:
    """Giving up leases that this process does not have is a write that changes nothing."""
    try:
        await services.store.queue.release_all()
    except StoreUnavailable as error:
        advice = "Look at the file's owner and permissions, the disk, and who else holds a lock."
        return Finding("write", False, str(error), advice)
    return Finding("write", True, "a transaction was committed")


async def _queue(services: "Services") -> Finding:
    figures = await services.store.queue.statistics()
    seen = f"{figures.depth} open executions, {figures.ready} ready, {figures.leased} being run"
    problem = why_not_moving(figures, _WAITING_SECONDS_MAX)
    return Finding("work", problem is None, seen, problem or "")


async def _stuck(services: "Services") -> Finding:
    stuck = await services.stuck.find(DEFAULT_WORKSPACE)
    if not stuck:
        return Finding("stuck", True, "every open execution moves or waits for something")
    named = _first_of([f"{each.execution_id} ({each.why})" for each in stuck])
    return Finding("stuck", False, f"these do not move: {named}", stuck[0].advice)


async def _agents(services: "Services") -> Finding:
    names: list[str] = []
    page = pages = 1
    while page <= pages:
        found = await services.reads.agents(
            DEFAULT_WORKSPACE, status="active", name=None, page=page, page_size=_AGENTS_PER_PAGE
        )
        names += (each.name for each in found.items)
        page, pages = page + 1, found.total_pages
    cut_off = await services.agent_parts.agents.out_of_reach(DEFAULT_WORKSPACE, names)
    if not cut_off:
        return Finding("agents", True, "work reaches every active agent")
    seen = f"no work reaches {_first_of(list(cut_off))}"
    return Finding("agents", False, seen, next(iter(cut_off.values())))


def _first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more
