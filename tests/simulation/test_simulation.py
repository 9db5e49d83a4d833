"""A few seeds in every test run; `make simulate` lives through ten thousand."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from application.callers import Answer
from application.control import Control
from tests.simulation.campaign import live
from tests.simulation.virtual_loop import VirtualLoop

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


@pytest.mark.parametrize("seed", [421, 689, 1278, 1910, 2550, 3950, 6103, 6535, 9395])
def test_seeds_that_once_found_a_bug_find_none(seed: int) -> None:
    assert live(seed).failure is None


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


def test_a_caller_whose_request_fails_unexpectedly_breaks_an_invariant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def cancel(*given: object) -> Answer:
        raise KeyError("nobody foresaw it")

    monkeypatch.setattr(Control, "cancel", cancel)
    broken = [failure for seed in range(1, 21) if (failure := live(seed).failure) is not None]
    assert broken
    for failure in broken:
        assert failure.invariant == "I21"
        assert "Traceback" in failure.what
        assert "KeyError: 'nobody foresaw it'" in failure.what


def test_every_error_that_nobody_caught_is_told_once() -> None:
    async def fails(error: Exception) -> None:
        raise error

    async def waits_for_others() -> None:
        loop.call_soon(lambda: [].pop())
        first = loop.create_task(fails(KeyError("a")))
        loop.create_task(fails(ValueError("foreseen")))
        await asyncio.gather(first)

    loop = VirtualLoop()
    with pytest.raises(KeyError):
        loop.run_until_complete(waits_for_others())
    crashes = loop.crashes(ValueError)
    loop.close()
    assert [each.error.splitlines()[-1] for each in crashes] == [
        "KeyError: 'a'",
        "IndexError: pop from empty list",
    ]
