"""A fault's verdict: what was broken counts, and so does a run that could not break anything."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.report import Options, Report, live_through, quick

pytestmark = pytest.mark.anyio


def held() -> Report:
    report = Report(fault="F0", seed=1, quick=True)
    report.bit("kill", 2)
    report.control("without protection", ["I1: lost"])
    return report


def test_a_run_that_bit_and_broke_nothing_holds() -> None:
    assert held().misses() == []


def test_what_is_broken_is_a_miss() -> None:
    report = held()
    report.demand(False, "I1 c: was lost")
    assert report.misses() == ["I1 c: was lost"]


def test_a_fault_that_never_bit_makes_the_run_void() -> None:
    report = held()
    report.bit("cut", 0)
    assert report.misses() == ["void: no cut happened"]


def test_a_control_that_breaks_nothing_is_a_miss() -> None:
    report = held()
    report.control("without a lock", [])
    assert report.misses() == ["the control broke nothing: without a lock"]


def test_a_run_that_did_nothing_shows_nothing() -> None:
    report = Report(fault="F0", seed=1, quick=True)
    assert report.misses() == ["void: no fault happened", "there is no control"]


def test_what_the_kernel_forbids_is_said_and_missed_by_a_full_run_only() -> None:
    report = Report(fault="F0", seed=1, quick=True, forbidden="no network namespaces")
    assert report.misses() == []
    assert report.as_json()["forbidden"] == "no network namespaces"
    report.quick = False
    assert report.misses() == ["nothing was shown: no network namespaces"]


def test_where_a_run_is_can_change_while_it_lasts() -> None:
    report = held()
    done: list[int] = []
    report.now(lambda: f"{len(done)} done")
    done.append(1)
    assert report.doing() == "1 done"
    report.now("judging")
    assert report.doing() == "judging"
    assert "doing" not in report.as_json()


async def test_a_run_that_breaks_off_is_a_miss_and_is_kept(tmp_path: Path) -> None:
    async def run(options: Options, report: Report) -> None:
        raise RuntimeError("no server")

    report = await live_through(
        "F0", run, Options(quick=True, seed=1, folder=tmp_path, keep=tmp_path / "kept")
    )

    assert report.misses()[0] == "the run broke off: RuntimeError: no server"
    assert "no server" in (tmp_path / "kept" / "F0.json").read_text()


async def test_a_run_without_an_end_is_broken_off_and_says_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.faults.report.SECONDS_MAX", 0.01)

    async def endless(options: Options, report: Report) -> None:
        report.now("waiting for nothing")
        await asyncio.Event().wait()

    report = await live_through("F0", endless, Options(quick=True, seed=1, folder=tmp_path))
    assert report.misses()[0].startswith("the run broke off: TimeoutError")
    assert report.misses()[0].endswith("at: waiting for nothing")


async def test_a_quick_run_that_showed_nothing_is_made_again(tmp_path: Path) -> None:
    async def second_time(options: Options, report: Report) -> None:
        report.bit("kill", int(options.seed > 1))
        report.control("without protection", ["I1: lost"])

    report = await quick("F0", second_time, tmp_path)
    assert (report.seed, report.misses()) == (2, [])


async def test_a_quick_run_that_broke_something_is_not_made_again(tmp_path: Path) -> None:
    async def broken(options: Options, report: Report) -> None:
        report.bit("kill", 0)
        report.demand(False, "I1 c: was lost")

    report = await quick("F0", broken, tmp_path)
    assert (report.seed, report.violations) == (1, ["I1 c: was lost"])
