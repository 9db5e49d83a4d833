"""`flowledger serve`: one line when ready, refusals that say what to do, an orderly stop."""

import json
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import httpx2
import pytest

from tests.e2e.programs import flowledger, serving

SLOW_ACTION = '''
import threading

def stay(config, context):
    """Works until somebody ends the process."""
    threading.Event().wait()
'''
ANYWHERE = "0.0.0.0"  # noqa: S104 - the address that is refused
STAY = {"name": "stay", "start_step": "stay", "steps": {"stay": {"action": "stay"}}}


def get(address: str) -> tuple[int, str]:
    answer = httpx2.get(address, timeout=10)
    return answer.status_code, answer.text


def test_it_prints_one_line_and_stops_cleanly(tmp_path: Path) -> None:
    with serving(cwd=tmp_path) as server:
        assert server.line == f"Flowledger is ready at {server.address} (docs: /docs)"
        assert get(f"{server.address}/readyz")[0] == 200
        assert get(f"{server.address}/docs")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""
        assert server.process.wait(30) == 0
    assert (tmp_path / "flowledger.db").exists()


def test_a_client_that_sends_before_it_reads_learns_that_it_sends_too_much(tmp_path: Path) -> None:
    """As most do; one whose connection is cut instead takes the server for away."""
    with serving(cwd=tmp_path) as server:
        for size in (1_000_001, 12_000_000):
            request = Request(  # noqa: S310 - the server's own address
                f"{server.address}/api/v1/tasks/task-a/complete",
                b'"' + b"x" * size + b'"',
                {"Content-Type": "application/json"},
            )
            with pytest.raises(HTTPError) as refused:
                urlopen(request, timeout=60)  # noqa: S310 - as above
            assert refused.value.code == 413
            assert json.load(refused.value)["code"] == "too_large"


def test_an_open_event_stream_does_not_delay_the_stop(tmp_path: Path) -> None:
    with serving(cwd=tmp_path) as server:
        (tmp_path / "wait.json").write_text(
            json.dumps(
                {
                    "name": "long",
                    "start_step": "w",
                    "steps": {"w": {"type": "wait", "duration_ms": 600_000}},
                }
            )
        )
        url = ("--url", server.address)
        assert flowledger("workflow", "publish", "wait.json", *url, cwd=tmp_path).code == 0
        started = flowledger("execute", "long", "--json", *url, cwd=tmp_path)
        execution = json.loads(started.out)["id"]
        stream = f"{server.address}/api/v1/executions/{execution}/stream"
        with httpx2.stream("GET", stream, timeout=30) as answer:
            lines = answer.iter_lines()
            assert next(lines)
            server.process.send_signal(signal.SIGTERM)
            with suppress(httpx2.RemoteProtocolError):  # the stream is cut where it stands
                list(lines)
        assert server.process.wait(30) == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_ACTION)
    (tmp_path / "stay.json").write_text(json.dumps(STAY))
    with serving(cwd=tmp_path, more={"FLOWLEDGER_ACTIONS": "slow.py"}) as server:
        url = ("--url", server.address)
        assert flowledger("workflow", "publish", "stay.json", *url, cwd=tmp_path).code == 0
        assert flowledger("execute", "stay", *url, cwd=tmp_path).code == 0
        server.process.send_signal(signal.SIGTERM)
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
        assert server.process.returncode == 128 + signal.SIGTERM


def test_another_address_needs_a_word(tmp_path: Path) -> None:
    ended = flowledger("serve", "--host", ANYWHERE, "--port", "0", cwd=tmp_path)
    assert ended.code == 2
    assert "--no-auth" in ended.err
    assert ended.out == ""
    with serving("--host", ANYWHERE, "--no-auth", cwd=tmp_path) as server:
        assert server.line.startswith("Flowledger is ready at http://")


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with serving(cwd=tmp_path) as server:
        port = server.address.rpartition(":")[2]
        ended = flowledger("serve", "--port", port, "--database", "other.db", cwd=tmp_path)
    assert ended.code == 5
    assert f"port {port}" in ended.err
    assert "--port 0" in ended.err
    assert not (tmp_path / "other.db").exists()


def test_a_bad_database_is_told(tmp_path: Path) -> None:
    for database, code, said in (
        ("mysql://here", 2, "postgresql://"),
        ("postgresql://nobody@127.0.0.1:1/none", 5, "database"),
        ("no/such/folder/file.db", 5, "database"),
    ):
        ended = flowledger("serve", "--port", "0", "--database", database, cwd=tmp_path)
        assert (ended.code, ended.out) == (code, ""), ended
        assert said in ended.err
        assert "Traceback" not in ended.err


def test_a_bad_setting_is_named(tmp_path: Path) -> None:
    ended = flowledger("serve", cwd=tmp_path, more={"FLOWLEDGER_PORT": "eight thousand"})
    assert ended.code == 2
    assert "FLOWLEDGER_PORT" in ended.err


def test_nothing_is_imported_from_the_folder_it_is_started_in(tmp_path: Path) -> None:
    for name in ("domain", "application", "yaml", "uvicorn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported from the cwd')")
    with serving(cwd=tmp_path) as server:
        assert get(f"{server.address}/livez")[0] == 200
    missing = flowledger("serve", cwd=tmp_path, more={"FLOWLEDGER_ACTIONS": "yaml_of_mine"})
    (tmp_path / "yaml_of_mine.py").write_text("def act(config, context): return None")
    assert missing.code == 2
    assert "yaml_of_mine" in missing.err


def test_an_older_schema_is_refused(tmp_path: Path) -> None:
    assert flowledger("migrate", cwd=tmp_path).code == 0
    with closing(sqlite3.connect(tmp_path / "flowledger.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '0001'")
        database.commit()
    ended = flowledger("serve", "--port", "0", cwd=tmp_path)
    assert (ended.code, ended.out) == (5, "")
    assert "flowledger migrate" in ended.err
    told = flowledger("doctor", cwd=tmp_path)
    assert told.code == 1
    assert "Run `flowledger migrate`." in told.out


def test_it_serves_postgresql(tmp_path: Path, postgres_dsn: str) -> None:
    with serving("--database", postgres_dsn, cwd=tmp_path) as server:
        assert get(f"{server.address}/readyz")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert flowledger("projections", "verify", "--database", postgres_dsn, cwd=tmp_path).code == 0
    assert flowledger("doctor", "--database", postgres_dsn, cwd=tmp_path).code == 0
