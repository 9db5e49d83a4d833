"""API, worker and projector processes on one PostgreSQL: work, take-over, restarts, stops."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.e2e.fleet import (
    API,
    PATIENCE_LOOKS,
    Fleet,
    ask_until,
    execute,
    fleet,
    get,
    lines_of,
    one_step,
    until_it_exists,
)
from tests.e2e.programs import flowledger

QUICK = {
    "name": "quick",
    "start_step": "first",
    "steps": {
        "first": {"action": "set_variables", "config": {"variables": {"x": 1}}},
    },
}


@pytest.fixture
def running(postgres_dsn: str, tmp_path: Path) -> Iterator[Fleet]:
    """Processes on a database of their own."""
    with fleet(postgres_dsn, tmp_path) as opened:
        yield opened


def test_another_worker_takes_over_from_a_killed_one(running: Fleet, tmp_path: Path) -> None:
    api, projector = running.api(), running.projector()
    workers = {each.process.pid: each for each in (running.worker(), running.worker())}
    taken = execute(api, one_step("stay_once", tmp_path))
    assert taken.status_code == 202, taken.text
    until_it_exists(tmp_path / "delivery-1", api)
    killed = int((tmp_path / "delivery-1").read_text())
    os.kill(workers.pop(killed).process.pid, signal.SIGKILL)

    ended = get(api, f"{API}/executions/{taken.json()['id']}", wait=30).json()

    (survivor,) = workers
    assert (ended["status"], ended["output"]["by"]) == ("COMPLETED", survivor)
    text = httpx2.get(
        f"{api.address}{API}/executions/{ended['id']}/events",
        headers={"Accept": "application/x-ndjson"},
    ).text
    kinds = [event["type"] for event in lines_of(text)]
    assert kinds.count("step_redelivered") == 1
    assert kinds.count("step_completed") == 1
    listed = get(api, f"{API}/executions?min_position={ended['position']}").json()
    assert [each["status"] for each in listed["items"]] == ["COMPLETED"]
    assert "flowledger_projector_leading 1.0" in get(projector, "/metrics").text


def test_a_paused_worker_that_wakes_up_records_nothing(running: Fleet, tmp_path: Path) -> None:
    api = running.api()
    paused = running.worker()
    taken = execute(api, one_step("stay_once", tmp_path)).json()
    until_it_exists(tmp_path / "delivery-1", api)
    os.kill(paused.process.pid, signal.SIGSTOP)
    try:
        other = running.worker()
        ended = get(api, f"{API}/executions/{taken['id']}", wait=30).json()
        assert (ended["status"], ended["output"]["by"]) == ("COMPLETED", other.process.pid)
    finally:
        os.kill(paused.process.pid, signal.SIGCONT)
    for _ in range(PATIENCE_LOOKS):
        if "flowledger_leases_held 0.0" in get(paused, "/metrics").text:
            break
    assert get(api, f"{API}/executions/{taken['id']}").json()["version"] == ended["version"]


def test_waits_and_streams_see_what_other_processes_do(running: Fleet) -> None:
    api = running.api()
    running.worker()
    answer = execute(api, QUICK, wait=30)
    assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETED")
    stream = get(api, f"{API}/executions/{answer.json()['id']}/stream").text
    assert re.findall(r"event: (\S+)", stream)[-1] == "end"


def test_a_worker_that_stops_gives_its_work_to_another(running: Fleet, tmp_path: Path) -> None:
    api, leaving = running.api(), running.worker("--grace-seconds", "0")
    taken = execute(api, one_step("until_told", tmp_path)).json()
    until_it_exists(tmp_path / f"began-{taken['id']}", api)
    leaving.process.send_signal(signal.SIGTERM)
    assert leaving.process.wait(30) == 0
    other = running.worker()
    (tmp_path / "go").touch()
    ended = get(api, f"{API}/executions/{taken['id']}", wait=30).json()
    assert (ended["status"], ended["output"]["by"]) == ("COMPLETED", other.process.pid)


def test_readiness_is_gone_at_the_signal(running: Fleet, tmp_path: Path) -> None:
    api = running.api("--drain-seconds", "5")
    worker, projector = running.worker(), running.projector()
    taken = execute(api, one_step("until_told", tmp_path)).json()
    until_it_exists(tmp_path / f"began-{taken['id']}", api)
    for each in (api, worker, projector):
        assert get(each, "/readyz").status_code == 200, each.line
    for each in (api, worker):
        each.process.send_signal(signal.SIGTERM)
        assert not ask_until(each, "/readyz", 503).json()["checks"]["process"]["ok"]
    # Its running step has all of the grace, and requests are answered while they are still taken.
    assert execute(api, QUICK).status_code == 202
    (tmp_path / "go").touch()
    projector.process.send_signal(signal.SIGTERM)
    assert [each.process.wait(30) for each in (api, worker, projector)] == [0, 0, 0]


def test_a_second_projector_stands_by_and_takes_over(running: Fleet) -> None:
    api = running.api()
    running.worker()
    first, second = running.projector(), running.projector()
    assert "flowledger_projector_leading 0.0" in get(second, "/metrics").text
    first.process.kill()
    ended = execute(api, QUICK, wait=30).json()
    listed = ask_until(api, f"{API}/executions?min_position={ended['position']}", 200)
    assert listed.json()["total"] == 1
    assert "flowledger_projector_leading 1.0" in get(second, "/metrics").text


@pytest.mark.parametrize("kind", ["api", "worker", "projector", "consumer", "bridge"])
def test_an_sqlite_file_has_one_process(kind: str, tmp_path: Path) -> None:
    ended = flowledger(kind, "--database", "sqlite:///file.db", cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert "flowledger serve" in ended.err
    assert not (tmp_path / "file.db").exists()


def test_times_of_leases_must_be_in_order(tmp_path: Path, postgres_dsn: str) -> None:
    ended = flowledger(
        "worker", "--database", postgres_dsn, "--lease-seconds", "5", "--fence-seconds", "6",
        cwd=tmp_path,
    )  # fmt: skip
    assert (ended.code, ended.out) == (2, "")
    assert "FLOWLEDGER_FENCE_SECONDS < FLOWLEDGER_LEASE_SECONDS" in ended.err
