"""A PostgreSQL server which a fault owns: it can be killed with all its children, and come back."""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from tests.postgres_server import (
    PostgresServer,
    PostgresUnavailable,
    find_binaries,
    initialise,
    own_folder,
    readable_binaries,
    start_server,
    wait_until_ready,
)

GONE_SECONDS_MAX = 10


class OwnedPostgres:
    """One cluster in `folder`; `settings` go over those of `tests.postgres_server`."""

    def __init__(self, folder: Path, settings: Sequence[str] = (), *, beside: bool = False) -> None:
        self.folder = folder
        self.starts = 0
        self._settings = settings
        # Beside the cluster: where it lives may be too small for a copy of them.
        self._binaries = readable_binaries(find_binaries(), folder.parent if beside else folder)
        self._guard: subprocess.Popen[bytes] | None = None
        initialise(self._binaries, folder)

    @property
    def admin_dsn(self) -> str:
        """URL of a database on it."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.folder))}"

    def create_database(self, prepare: Callable[[str], None] | None = None) -> str:
        """Make a database and return its URL; see PostgresServer."""
        return PostgresServer(self.admin_dsn).create_database(prepare)

    def start(self) -> None:
        """Return once it takes connections. Raises PostgresUnavailable."""
        guard = self._guard = start_server(self._binaries, self.folder, self._settings, keep=True)
        self.starts += 1

        def ended() -> bool:
            children = list(_children(guard.pid))  # what has ended stays one, until its guard looks
            return bool(children) and not any(map(_alive, children))

        wait_until_ready(self.admin_dsn, guard, self.folder, ended)

    async def revive(self, seconds_max: float = 60.0) -> None:
        """Start it as often as it takes, as a supervisor does."""
        async with asyncio.timeout(seconds_max):
            while True:
                try:
                    return await asyncio.to_thread(self.start)
                except PostgresUnavailable:
                    self._dismiss()
                    await asyncio.sleep(0.1)

    def postmaster(self) -> int | None:
        """The first process of the running server, None when there is none."""
        try:
            number = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return number if _alive(number) else None

    def family(self) -> list[int]:
        """The processes of the running server, the first one first; none when it does not run."""
        first = self.postmaster()
        return [] if first is None else [first, *_children(first)]

    def kill(self) -> None:
        """SIGKILL for the server and every process of it; return when all are gone."""
        first = self.postmaster()
        if first is not None:
            os.kill(first, signal.SIGSTOP)  # or it would make more of them meanwhile
            family = self.family()
            for number in family:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            self._dismiss()
            _wait_gone(family)
        self._dismiss()

    def stop(self) -> None:
        """End it at once, without a shutdown checkpoint."""
        self._dismiss()

    def _dismiss(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.communicate()


@asynccontextmanager
async def owned_postgres(
    settings: Sequence[str] = (), prepare: Callable[[Path], None] | None = None
) -> AsyncIterator[OwnedPostgres]:
    """A started server which is gone afterwards.

    With `prepare`, it lives in a folder below its own which that has made ready, or refused.
    """
    with own_folder() as made:
        folder = made
        if prepare is not None:
            folder = made / "place"
            folder.mkdir()
            await asyncio.to_thread(prepare, folder)
        server = await asyncio.to_thread(
            OwnedPostgres, folder, settings, beside=prepare is not None
        )
        try:
            await asyncio.to_thread(server.start)
            yield server
        finally:
            await asyncio.to_thread(server.kill)


def _children(parent: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    yield int(entry.name)


def _alive(number: int) -> bool:
    try:
        state = (Path("/proc") / str(number) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _wait_gone(family: Sequence[int]) -> None:
    for _ in range(GONE_SECONDS_MAX * 1_000):
        if not any(_alive(number) for number in family):
            return
        threading.Event().wait(0.001)
    raise TimeoutError("killed processes did not go away")
