"""The installed command and the programs of the examples, run as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"
COMMAND = Path(sys.executable).with_name("flowledger")
SECONDS_MAX = 100
WEBHOOK_SECRET = "whsec_bm90LWEtc2VjcmV0LW9ubHktYS1zYW1wbGU="


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str


class Server(NamedTuple):
    """A program that serves; `line` is what it printed when it was ready."""

    process: "subprocess.Popen[str]"
    line: str

    @property
    def address(self) -> str:
        return next(word for word in self.line.split() if word.startswith("http://"))


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without settings of Flowledger and of Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWLEDGER_", "PYTHON"))}
    return kept | dict(more or {})


def flowledger(
    *arguments: str, cwd: Path, more: Mapping[str, str] | None = None, stdin: str = ""
) -> Ended:
    """Run the installed command to its end."""
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env=environment(more),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@contextmanager
def serving(*arguments: str, cwd: Path, more: Mapping[str, str] | None = None) -> Iterator[Server]:
    """`flowledger serve` on a free port until the block ends."""
    command = [str(COMMAND), "serve", "--port", "0", *arguments]
    with program(command, cwd=cwd, more=more) as server:
        yield server


@contextmanager
def shop(cwd: Path) -> Iterator[Server]:
    """The shop service of the examples, which knows the sample's webhook secret."""
    command = [sys.executable, str(EXAMPLES / "shop.py"), "--port", "0"]
    with program(command, cwd=cwd, more={"SHOP_WEBHOOK_SECRET": WEBHOOK_SECRET}) as server:
        yield server


@contextmanager
def program(
    command: Sequence[str], *, cwd: Path, more: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A program that prints one line when it is ready; ended by SIGTERM if it still runs."""
    log = cwd / f"{Path(command[1]).stem}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            assert line, f"{command} did not start: {log.read_text()}"
            yield Server(process, line)
        finally:
            process.terminate()
            try:
                process.wait(SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def example_settings() -> dict[str, str]:
    """What a server needs to run `examples/orders.yaml`."""
    return {
        "FLOWLEDGER_ACTIONS": str(EXAMPLES / "order_actions.py"),
        "FLOWLEDGER_OUTBOUND_ALLOW": "127.0.0.1",
        "FLOWLEDGER_SECRET_SHOP_WEBHOOK": WEBHOOK_SECRET,
    }
