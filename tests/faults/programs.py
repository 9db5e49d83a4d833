"""Processes of the product which a fault owns: started, killed, stopped for a while, started again.

They run the code of this checkout through the command-line interface, as an operator would.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.e2e.programs import ROOT, environment

START_SECONDS_MAX = 120
COMMAND_LINE = (sys.executable, "-c", "from interfaces.cli import main; main()")
"""`flowledger`, whichever checkout the installed command belongs to."""
EFFECTS = Path(__file__).with_name("effects.py")


class Program:
    """`flowledger serve` (or another kind) on a database; `address` is empty while it is away."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        kind: str = "serve",
        name: str = "server",
        settings: Mapping[str, str] | None = None,
        arguments: Sequence[str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """`settings` are environment variables; `arguments` follow the kind on the command line;
        `within` is a command that runs it somewhere else (a network of its own).
        """
        self.url = url
        self.folder = folder
        self.name = name
        self.effects = folder / "effects.jsonl"
        self.address = ""
        self.starts = 0
        self._kind = kind
        self._arguments = ["--port", "0"] if arguments is None else list(arguments)
        self._settings = dict(settings or {})
        self._within = within
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The running process. Raises LookupError when there is none."""
        if self._process is None or self._process.returncode is not None:
            raise LookupError(f"{self.name} does not run")
        return self._process.pid

    @property
    def log(self) -> Path:
        """What it writes on standard error, over all its starts."""
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """Return once it says that it is ready. Raises RuntimeError with its last words."""
        more = {
            "FLOWLEDGER_ACTIONS": str(EFFECTS),
            "FLOWLEDGER_DATABASE_URL": self.url,
            "EFFECTS_FILE": str(self.effects),
            "PYTHONPATH": str(ROOT),
            **self._settings,
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._within,
                *COMMAND_LINE,
                self._kind,
                *self._arguments,
                "--json",
                cwd=self.folder,
                env=environment(more),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self.starts += 1
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS_MAX)
        if not line:
            raise RuntimeError(f"{self.name} did not start:\n{self.last_words()}")
        self.address = str(json.loads(line).get("address") or "")

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """Send a signal and return the exit code once the process is gone."""
        process, self._process, self.address = self._process, None, ""
        if process is None:
            return None
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(how)
        return await process.wait()

    async def wait(self) -> int | None:
        """The exit code, once it has ended by itself or by a signal sent before."""
        process, self._process, self.address = self._process, None, ""
        return None if process is None else await process.wait()

    def signal(self, what: signal.Signals) -> None:
        """SIGSTOP, SIGCONT: what does not end it. Raises LookupError when it does not run."""
        assert self.pid
        assert self._process is not None
        self._process.send_signal(what)

    def memory_bytes(self) -> int:
        """Resident memory. Raises LookupError when it does not run."""
        pages = int((Path("/proc") / str(self.pid) / "statm").read_text().split()[1])
        return pages * 4096

    def memory_peak_bytes(self) -> int:
        """The most resident memory since the start. Raises LookupError when it does not run."""
        text = (Path("/proc") / str(self.pid) / "status").read_text()
        line = next(each for each in text.splitlines() if each.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def effects_bytes(self) -> int:
        """How much its actions have told so far."""
        return self.effects.stat().st_size if self.effects.exists() else 0

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4_000:] if self.log.exists() else ""


@asynccontextmanager
async def running(*programs: Program) -> AsyncIterator[None]:
    """Programs that run until the block ends, and are then killed."""
    try:
        await asyncio.gather(*(program.start() for program in programs))
        yield
    finally:
        for program in programs:
            with suppress(LookupError):
                program.signal(signal.SIGCONT)
            await program.end(signal.SIGKILL)
