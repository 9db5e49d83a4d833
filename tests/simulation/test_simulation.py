"""A few seeds in every test run; `make simulate` lives through ten thousand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import live

ROOT = Path(__file__).parent.parent.parent
SEEDS = 40
DIGESTS = "from tests.simulation.campaign import live; print([live(n).digest for n in range(1, 6)])"


@pytest.mark.parametrize("first", range(1, SEEDS, 10))
def test_no_seed_breaks_an_invariant(first: int) -> None:
    faults = 0
    for seed in range(first, first + 10):
        lived = live(seed)
        assert lived.failure is None, lived.failure
        faults += sum(lived.faults.values())
    assert faults > 100


def test_a_seed_is_the_same_log_in_every_process() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert told == {f"{[live(seed).digest for seed in range(1, 6)]}\n"}
