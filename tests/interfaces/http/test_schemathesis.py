"""Cases that a tool makes from the description of the interface, sent to a real server.

A few hundred in every run of the tests; `make schemathesis` sends at least 5,000. All checks of the
tool are on; what its settings allow besides is listed with reasons in `schemathesis.toml`.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.programs import serving
from tests.interfaces.http.served import FAILING, QUICK, WAITING

SETTINGS = Path(__file__).parent / "schemathesis.toml"
CASES_MIN = 5_000
TOOL = Path(sys.executable).with_name("schemathesis")


@pytest.mark.timeout(1_500)
def test_generated_requests_meet_no_surprise(tmp_path: Path, heavy: bool) -> None:
    with serving(cwd=tmp_path) as server:
        ids = [_executed(server.address, each) for each in (QUICK, WAITING, FAILING)]
        (tmp_path / "executions.txt").write_text(
            "".join(f'"{each}"\n' for each in (*ids, "nobody"))
        )
        shutil.copy(SETTINGS, tmp_path)
        amount = (
            ["--phases", "examples,coverage,fuzzing", "-n", "100"]
            if heavy
            else ["--phases", "examples,fuzzing", "-n", "6", "--generation-deterministic"]
        )
        done = subprocess.run(
            [TOOL, "run", f"{server.address}/openapi.json", "--no-color", *amount],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert httpx2.get(f"{server.address}/readyz").status_code == 200
    report = done.stdout + done.stderr
    assert done.returncode == 0, report[-20_000:]
    generated = re.search(r"(\d+) generated", report)
    assert generated is not None
    print(f"{generated[1]} cases")
    assert int(generated[1]) >= (CASES_MIN if heavy else 200)


def _executed(address: str, definition: Any) -> str:
    with httpx2.Client(base_url=f"{address}/api/v1") as http:
        http.post("/workflows", json=definition).raise_for_status()
        answer = http.post(f"/workflows/{definition['name']}/execute", json={})
        return str(answer.raise_for_status().json()["id"])
