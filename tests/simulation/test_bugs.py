"""The simulation finds bugs, planted one by one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.bugs import BUGS, Bug

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.simulation",
            "--json",
            f"--bug={bug.name}",
            f"--seeds={bug.seeds_from}-{bug.seeds_max}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    (failure,) = json.loads(found.stdout)["failures"]
    assert failure["invariant"] in bug.invariants, found.stderr
