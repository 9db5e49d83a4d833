"""A disk that reports errors: no flush of a PostgreSQL server's log works (EIO), through strace."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.faults.owned_postgres import OwnedPostgres

CALLS = "fdatasync"
"""With which PostgreSQL flushes its log on Linux, as long as wal_sync_method is not set."""
ATTACHED_SECONDS_MAX = 10.0


class TracingRefused(RuntimeError):
    """There is no strace, or it may not look at other processes."""


@asynccontextmanager
async def failing_flushes(server: OwnedPostgres, folder: Path) -> AsyncIterator[Callable[[], int]]:
    """No flush of the running server works while the block lasts; gives how many have failed.

    A server that is started meanwhile has a good disk. Raises TracingRefused.
    """
    family = await _family(server)
    told = folder / "flushes"
    told.unlink(missing_ok=True)
    command = ["strace", "-f", "-qq", "-o", str(told), "-e", f"trace={CALLS}"]
    command += ["-e", f"inject={CALLS}:error=EIO"]
    command += [part for number in family for part in ("-p", str(number))]
    if shutil.which("strace") is None:
        raise TracingRefused("strace is not installed: apt-get install strace (Debian, Ubuntu)")
    tracer = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        await _attached(tracer, family[0])
        yield lambda: told.read_bytes().count(b"(INJECTED)") if told.exists() else 0
    finally:
        with suppress(ProcessLookupError):
            tracer.terminate()
        await tracer.communicate()


async def _family(server: OwnedPostgres) -> list[int]:
    family = server.family()
    while not family:
        await asyncio.sleep(0.05)
        family = server.family()
    return family


async def _attached(tracer: asyncio.subprocess.Process, number: int) -> None:
    """Return once the tracer has the process. Raises TracingRefused when it has ended instead."""
    async with asyncio.timeout(ATTACHED_SECONDS_MAX):
        while not _traced(number):
            if tracer.returncode is not None:
                _, words = await tracer.communicate()
                raise TracingRefused(f"strace ended: {words.decode(errors='replace').strip()}")
            await asyncio.sleep(0.01)


def _traced(number: int) -> bool:
    try:
        text = Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False
    return "TracerPid:\t0" not in text
