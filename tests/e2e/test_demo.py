"""`flowledger demo`, through the installed command, in an empty folder."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.e2e.programs import flowledger, serving


def test_the_demo_runs_to_its_end_and_shows_all_it_promises(tmp_path: Path) -> None:
    left_behind = tmp_path / "var" / "demo" / "flowledger.db"
    left_behind.parent.mkdir(parents=True)
    left_behind.write_text("of an earlier demo")
    ended = flowledger("demo", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    for promised in (
        "book failed: ",
        "book will be tried again in 400 ms (try 2)",
        "book (try 3) completed",
        "all_good: the condition is false, so report_rejects runs",
        "COMPLETED in ",
        "execution.step_completed.v1",
        "stateDiagram-v2",
        "SQL> SELECT agent_name",
        "daily-orders",
        "serve --database sqlite:///var/demo/flowledger.db",
    ):
        assert promised in ended.out
    for ugly in ("Traceback", "WARNING", "error:"):
        assert ugly not in ended.out


def test_the_demo_leaves_a_file_that_serve_serves(tmp_path: Path) -> None:
    ended = flowledger("demo", "--json", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    execution = told["execution"]
    assert execution["status"] == "COMPLETED"
    assert execution["output"]["orders"] == 193
    assert execution["output"]["gross"] == "6386.25 EUR"
    file = tmp_path / "var" / "demo" / "flowledger.db"
    with closing(sqlite3.connect(file)) as database:
        runs = database.execute("SELECT run_id, status FROM workflow_runs").fetchall()
    assert runs == [(execution["run_id"], "COMPLETED")]
    with serving("--database", told["database"], cwd=tmp_path) as server:
        again = flowledger(
            "watch", execution["id"], "--json", "--url", server.address, cwd=tmp_path
        )
    assert again.code == 0
    assert json.loads(again.out) == execution
