"""`python -m tests.faults list | all | F1 ... [--quick] [--seed N] [--keep FOLDER]`."""

import subprocess
import sys
import time
from collections.abc import Sequence

from tests.faults.catalogue import MODULES, fault_of, title_of
from tests.faults.report import read_options, run_one, tell


def main(arguments: Sequence[str] | None = None) -> None:
    """Run faults one after the other; ends with 1 when one of them missed something."""
    chosen = {"nargs": "*", "default": ["list"], "help": "list, all, or numbers such as F1"}
    given, seed = read_options(arguments, faults=chosen)
    if given.faults == ["list"]:
        for number in MODULES:
            sys.stdout.write(f"{number:<4} {title_of(number)}\n")
        return
    numbers = list(MODULES) if given.faults == ["all"] else given.faults
    if unknown := [each for each in numbers if each not in MODULES]:
        sys.exit(f"unknown: {' '.join(unknown)}; `list` names them all")
    if len(numbers) == 1:
        report = run_one(numbers[0], fault_of(numbers[0]), given, seed)
        sys.exit(1 if report.misses() else 0)
    sys.exit(_one_after_the_other(numbers, given.quick, seed, given.keep))


def _one_after_the_other(numbers: Sequence[str], quick: bool, seed: int, keep: object) -> int:
    """Each in a process of its own, so that none inherits the memory and threads of another."""
    rows = []
    for number in numbers:
        tell(f"{number}: {title_of(number)}")
        command = [sys.executable, "-m", "tests.faults", number, "--seed", str(seed)]
        command += ["--quick"] if quick else []
        command += ["--keep", str(keep)] if keep else []
        began = time.monotonic()
        code = subprocess.run(command, check=False).returncode
        rows.append((number, "held" if code == 0 else "MISSED", time.monotonic() - began))
    tell("summary")
    for number, verdict, seconds in rows:
        tell(f"  {number:<4} {verdict:<7} {seconds:6.0f} s  {title_of(number)}")
    return 1 if any(verdict != "held" for _, verdict, _ in rows) else 0


if __name__ == "__main__":
    main()
