"""`python -m tests.simulation`: live through seeds, and judge.

`--seed N` repeats one, `--seeds A-B` runs many (`--processes` at a time), `--bug NAME` plants a bug
first and expects to find it. Ends with 1 when an invariant is broken, or a bug not found.
"""

import argparse
import sys

from tests.simulation.bugs import BUGS, Bug, bug_named, plant


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat one seed and print its log")
    parser.add_argument("--seeds", default="1-100", help="first and last seed, as 1-10000")
    parser.add_argument("--processes", type=int, default=1, help="how many run at a time")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--bug", choices=[bug.name for bug in BUGS], help="plant a bug first")
    given = parser.parse_args()
    bug: Bug | None = None if given.bug is None else bug_named(given.bug)
    if bug is not None:
        plant(bug)
    # Only now, as it imports the product, which the bug is in.
    from tests.simulation import campaign  # noqa: PLC0415 - a bug is planted before the import

    if given.seed is not None:
        return campaign.repeat(given.seed, bug)
    first, _, last = given.seeds.partition("-")
    return campaign.run(
        range(int(first), int(last or first) + 1),
        bug,
        processes=given.processes,
        as_json=given.json,
    )


if __name__ == "__main__":
    sys.exit(main())
