"""The example workers that ask for work, against a real server."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.programs import EXAMPLES, program, serving

WORKERS = EXAMPLES / "agents"


def counting(text: Any) -> Any:
    """A definition whose one step has the words of a text counted."""
    return {
        "name": "counting",
        "start_step": "count",
        "steps": {"count": {"type": "agent", "agent_name": "counter", "input_mapping": text}},
    }


@pytest.mark.parametrize("worker", [[sys.executable, "pull_worker.py"], ["sh", "pull_worker.sh"]])
def test_a_worker_does_what_it_asked_for(worker: Sequence[str], tmp_path: Path) -> None:
    interpreter, name = worker
    (tmp_path / "server").mkdir()
    with (
        serving(cwd=tmp_path / "server") as server,
        httpx2.Client(base_url=f"{server.address}/api/v1", timeout=60) as http,
    ):
        http.post("/agents", json={"name": "counter", "transport": "pull"}).raise_for_status()
        command = [interpreter, str(WORKERS / name), server.address, "counter"]
        with program(command, cwd=tmp_path) as running:
            assert running.line == f"counter asks {server.address} for work"
            counted = [_run(http, {"text": text}) for text in ("one two  three", "four")]
            failed = _run(http, {"note": "no text"})
        assert [each["output"] for each in counted] == [{"words": 3}, {"words": 1}]
        assert (failed["status"], failed["error"]["class"]) == ("FAILED", "permanent")
        assert failed["error"]["code"] == "agent_error"


def _run(http: httpx2.Client, asked: Any) -> Any:
    answer = http.post(
        "/executions", json={"definition": counting(asked)}, headers={"Prefer": "wait=30"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_worker_whose_agent_is_unknown_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with serving(cwd=tmp_path / "server") as server:
        command = [sys.executable, str(WORKERS / "pull_worker.py"), server.address, "nobody"]
        with program(command, cwd=tmp_path) as running:
            assert running.process.wait(60) == 1
        assert "register it with POST /api/v1/agents" in (tmp_path / "pull_worker.log").read_text()
