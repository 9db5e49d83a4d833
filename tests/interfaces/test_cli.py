"""Commands on the embedded file, in this process: what they print and how they end."""

import json
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from infrastructure.projections import verification
from interfaces.cli import run
from interfaces.cli_failures import ExitCode

GREETING = """
name: greeting
start_step: look
steps:
  look:
    type: conditional
    condition: ${workflow.input.brief} == true
    if_true_step: short
    if_false_step: long
    next_step: tell
  short: {action: set_variables, config: {variables: {text: "Hi ${workflow.input.name}"}}}
  long: {action: set_variables, config: {variables: {text: "Dear ${workflow.input.name}"}}}
  tell: {action: send_notification, config: {message: "${look.output.branch_output.text}"}}
output: {said: "${look.output.branch_output.text}"}
"""
BROKEN = """
name: broken
start_step: first
steps:
  first:
    action: set_variables
    config: {variables: {}}
    next_step: secnod
  last:
    action: no_such_action
"""
FAILING = """
name: failing
start_step: keep
steps:
  keep: {action: set_variables, config: {variables: {a: 1}}, next_step: call}
  call: {action: call_api, config: {url: "http://127.0.0.1:1/"}}
"""
WAITING = "name: waiting\nstart_step: w\nsteps: {w: {type: wait, duration_ms: 600000}}"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # what REST answered
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Runs `flowledger ...` in an empty folder with four definitions."""
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("greeting", GREETING),
        ("broken", BROKEN),
        ("failing", FAILING),
        ("waiting", WAITING),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)

    def run_command(*arguments: str) -> Ended:
        code = run(arguments)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return run_command


def published(command: Command, name: str) -> None:
    assert command("workflow", "publish", f"{name}.yaml").code == ExitCode.DONE


def test_a_definition_is_checked_without_storing_it(command: Command) -> None:
    valid = command("workflow", "validate", "greeting.yaml")
    assert (valid.code, valid.out) == (ExitCode.DONE, "greeting.yaml is valid.\n")
    assert command("workflow", "list", "--json").json["total"] == 0


def test_a_check_makes_no_database(command: Command) -> None:
    before = set(Path().iterdir())
    for name, code in (("greeting", ExitCode.DONE), ("broken", ExitCode.INVALID)):
        for more in ((), ("--json",), ("--database", "other.db")):
            assert command("workflow", "validate", f"{name}.yaml", *more).code == code
    assert set(Path().iterdir()) == before


def test_every_mistake_is_told_with_its_line(command: Command) -> None:
    for verb in ("validate", "publish"):
        broken = command("workflow", verb, "broken.yaml")
        assert broken.code == ExitCode.INVALID
        assert "broken.yaml:8: /steps/first/next_step: " in broken.err
        assert "broken.yaml:10: /steps/last/action: " in broken.err
        assert "[unknown_action]" in broken.err
        assert broken.out == ""
    verdict = command("workflow", "validate", "broken.yaml", "--json")
    assert verdict.code == ExitCode.INVALID
    assert verdict.json["valid"] is False
    assert {"/steps/first/next_step", "/steps/last/action"} <= {
        error["pointer"] for error in verdict.json["errors"]
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1", "bad.yaml:1:4: anchors are not accepted"),
        ("a: 1\na: 2", "bad.yaml:2:1: the key 'a' stands here twice"),
        ("- 1", "bad.yaml:1: (the whole definition): a definition is a mapping"),
        ("", "bad.yaml:1:1: the file holds no value"),
    ],
)
def test_a_file_that_is_no_definition_is_told(
    command: Command, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    for verb in ("validate", "publish"):
        ended = command("workflow", verb, "bad.yaml")
        assert ended.code == ExitCode.INVALID
        assert said in ended.err


def test_a_missing_file_is_told(command: Command) -> None:
    ended = command("workflow", "publish", "none.yaml")
    assert ended.code == ExitCode.NOT_FOUND
    assert "There is no file none.yaml" in ended.err


def test_publishing_makes_versions(command: Command) -> None:
    first = command("workflow", "publish", "greeting.yaml")
    assert first.out == "Published greeting version 1 (wf-greeting-1).\n"
    assert command("workflow", "publish", "greeting.yaml", "--json").json["version"] == 2
    shown = command("workflow", "show", "greeting", "--version", "1")
    assert shown.out.startswith("greeting version 1, active\n")
    assert '"start_step": "look"' in shown.out
    listed = command("workflow", "list")
    assert "greeting" in listed.out
    assert listed.out.endswith("1 of 1\n")


def test_what_is_published_is_run_as_told(command: Command, tmp_path: Path) -> None:
    assert command("workflow", "publish", "greeting.yaml").err == (
        "Run it: flowledger execute greeting --watch\n"
    )
    kinds = ("string", "integer", "number", "boolean", "array", "object", "null")
    properties: dict[str, object] = {kind: {"type": kind} for kind in kinds}
    properties |= {
        "choice": {"enum": ["it's", 2]},
        "fixed": {"const": "x"},
        "usual": {"type": "integer", "minimum": 3, "default": 4},
        "either": {"type": ["string", "null"]},
    }
    schema = {"type": "object", "properties": properties, "required": [*properties, "any"]}
    steps = {"s": {"action": "set_variables", "config": {"variables": {}}}}
    definition = {"name": "asks", "start_step": "s", "steps": steps, "input_schema": schema}
    (tmp_path / "asks.json").write_text(json.dumps(definition))
    told = command("workflow", "publish", "asks.json").err
    assert told.startswith("Run it: flowledger execute asks --input ")
    arguments = shlex.split(told.removeprefix("Run it: flowledger"))
    assert command(*arguments).code == ExitCode.DONE


def test_execute_and_watch_to_the_end(command: Command) -> None:
    published(command, "greeting")
    ended = command("execute", "greeting", "--input", '{"name": "Ada"}', "--watch")
    assert ended.code == ExitCode.DONE
    assert 'output        {"said": "Dear Ada"}' in ended.out
    assert "look: the condition is false, so long runs" in ended.err
    assert "COMPLETED" in ended.err


def test_input_comes_from_files_too(command: Command, tmp_path: Path) -> None:
    published(command, "greeting")
    (tmp_path / "in.yaml").write_text("name: Ada\nbrief: true\n")
    (tmp_path / "in.json").write_text('{"name": "Ada", "brief": true}')
    for given in ("@in.yaml", "@in.json"):
        ended = command("execute", "greeting", "--input", given, "--watch", "--json")
        assert ended.json["output"] == {"said": "Hi Ada"}
        assert ended.err == ""
    for wrong in ("[1]", "{", '{"a": NaN}', "@none.json"):
        assert command("execute", "greeting", "--input", wrong).code in (2, 3)


def test_options_of_an_execution_arrive(command: Command) -> None:
    published(command, "waiting")
    view = command(
        *("execute", "waiting", "--json", "--actor", "alice", "--label", "team=a"),
        *("--priority", "0", "--key", "k-1", "--delay", "60"),
    ).json
    assert (view["triggered_by"], view["labels"], view["priority"]) == ("alice", {"team": "a"}, 0)
    assert view["status"] == "PENDING"
    again = command(
        *("execute", "waiting", "--json", "--actor", "alice", "--label", "team=a"),
        *("--priority", "0", "--key", "k-1", "--delay", "60"),
    ).json
    assert again["id"] == view["id"]
    listed = command("list", "--label", "team=a", "--status", "pending", "--json").json
    assert [item["id"] for item in listed["items"]] == [view["id"]]
    assert command("list", "--label", "team=b", "--json").json["total"] == 0


def test_an_execution_on_the_file_waits_for_somebody_to_work(command: Command) -> None:
    published(command, "waiting")
    ended = command("execute", "waiting")
    assert ended.code == ExitCode.DONE
    assert "flowledger watch" in ended.err


def test_only_who_waits_for_an_execution_runs_any(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shout.py").write_text("def shout(config, context):\n    return {}\n")
    (tmp_path / "loud.yaml").write_text("name: loud\nstart_step: s\nsteps: {s: {action: shout}}\n")
    monkeypatch.setenv("FLOWLEDGER_ACTIONS", "shout.py")
    published(command, "loud")
    first = command("execute", "loud", "--json").json["id"]
    monkeypatch.delenv("FLOWLEDGER_ACTIONS")
    second = command("execute", "loud").out
    assert "PENDING" in second
    for bystander in (
        *(("list",), ("history", first), ("diagram", first), ("explain", first)),
        *(("questions",), ("workflow", "list"), ("agents", "list"), ("dead-letters", "list")),
        *(("projections", "status"), ("pause", first), ("resume", first)),
        *(("signal", first, "go"), ("workflow", "publish", "greeting.yaml"), ("doctor",)),
    ):
        assert command(*bystander).code == ExitCode.DONE, bystander
    waiting = command("list", "--json").json["items"]
    assert [each["status"] for each in waiting] == ["PENDING", "PENDING"]
    monkeypatch.setenv("FLOWLEDGER_ACTIONS", "shout.py")
    assert command("watch", first).code == ExitCode.DONE
    assert command("retry", first).code == ExitCode.CONFLICT


def test_a_failed_execution_ends_with_one_and_can_be_retried(command: Command) -> None:
    published(command, "failing")
    failed = command("execute", "failing", "--watch", "--json")
    assert failed.code == ExitCode.UNSUCCESSFUL
    view = failed.json
    assert view["status"] == "FAILED"
    assert f"flowledger retry {view['id']}" in failed.err
    assert command("watch", view["id"]).code == ExitCode.UNSUCCESSFUL
    retried = command("retry", view["id"], "--reason", "it is up again", "--watch", "--json")
    assert retried.code == ExitCode.UNSUCCESSFUL
    assert retried.json["attempt"] == 2
    told = command("history", view["id"]).out
    assert "reopened as attempt 2; to run again: call: it is up again" in told
    assert told.count("keep started") == 1


def test_cancel_then_cancel_again_then_nothing_else(command: Command) -> None:
    published(command, "waiting")
    execution = command("execute", "waiting", "--json").json["id"]
    cancelled = command("cancel", execution, "--reason", "not needed", "--json")
    assert cancelled.json["status"] == "CANCELLED"
    assert command("cancel", execution).code == ExitCode.DONE
    published(command, "greeting")
    done = command("execute", "greeting", "--watch", "--input", '{"name": "A"}', "--json").json[
        "id"
    ]
    late = command("cancel", done)
    assert late.code == ExitCode.CONFLICT
    assert "It is COMPLETED; possible now: " in late.err


def test_history_diagram_and_explain(command: Command, tmp_path: Path) -> None:
    published(command, "greeting")
    view = command("execute", "greeting", "--input", '{"name": "A"}', "--watch", "--json").json
    events = command("history", view["id"], "--json").json["items"]
    assert [event["version"] for event in events] == list(range(1, view["version"] + 1))
    later = command("history", view["id"], "--after", "3", "--json").json["items"]
    assert later == events[3:]
    assert command("diagram", view["id"]).out.count("stateDiagram-v2") == 1
    assert command("diagram", "greeting", "--workflow", "--format", "dot").out.startswith("digraph")
    assert command("diagram", view["id"], "--format", "svg", "--output", "a.svg").out == ""
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert command("diagram", view["id"], "--json").json["nodes"]
    assert command("diagram", view["id"], "--format", "gif").code == ExitCode.INVALID
    assert "retry: " in command("explain", view["id"]).out
    assert command("explain", view["id"], "--json").json["summary"]


def test_projections_and_doctor(command: Command) -> None:
    published(command, "greeting")
    assert "workflow_runs" in command("projections", "status").out
    told = command("doctor", "--json")
    assert told.code == ExitCode.DONE
    assert told.json["ok"] is True
    assert {"packages", "schema", "write"} <= {each["check"] for each in told.json["checks"]}


def test_doctor_makes_no_file(command: Command, tmp_path: Path) -> None:
    ended = command("doctor", "--database", "new.db")
    assert ended.code == ExitCode.DONE
    assert "does not exist yet" in ended.out
    assert not (tmp_path / "new.db").exists()
    (tmp_path / "text.db").write_text("this is no database, but long enough to look like one" * 40)
    bad = command("doctor", "--database", "text.db")
    assert bad.code == ExitCode.UNSUCCESSFUL
    assert "FAULT  database: The database sqlite:///text.db cannot be used: " in bad.out
    assert "Check --database or FLOWLEDGER_DATABASE_URL: " in bad.out
    assert "flowledger doctor" not in bad.out


def test_migrate_twice(command: Command) -> None:
    assert command("migrate", "--json").json["changed"] is True
    assert command("migrate", "--json").json["changed"] is False
    assert command("migrate").out.startswith("Nothing to do")


def test_who_asks_is_told_in_any_script(command: Command) -> None:
    published(command, "waiting")
    view = command("execute", "waiting", "--actor", "Zoë 王", "--json").json
    assert view["triggered_by"] == "Zoë 王"
    assert "Zoë 王" in command("history", view["id"]).out


def test_verify_names_a_difference_and_rebuild_mends_it(command: Command, tmp_path: Path) -> None:
    published(command, "greeting")
    view = command("execute", "greeting", "--input", '{"name": "A"}', "--watch", "--json").json
    with closing(sqlite3.connect(tmp_path / "flowledger.db")) as database:
        rows = database.execute("SELECT status FROM workflow_runs").fetchall()
    assert rows == [("COMPLETED",)]  # the command ends when its tables tell what it did
    equal = command("projections", "verify")
    assert equal.code == ExitCode.DONE
    assert "workflow_runs: equal, 1 rows" in equal.out
    assert "not in the table yet" not in equal.out
    edit(tmp_path, "UPDATE workflow_runs_v1 SET status = 'FAILED'")
    edit(tmp_path, "DELETE FROM step_executions_v1")
    wrong = command("projections", "verify")
    assert wrong.code == ExitCode.UNSUCCESSFUL
    assert "expected 'COMPLETED', found 'FAILED'" in wrong.out
    assert "Either the table or the log was changed." in wrong.err
    advice = wrong.err.partition("Compare both with a backup first")[2]
    for name in ("workflow_runs", "step_executions"):
        assert f"`flowledger projections rebuild {name}`" in advice
    assert command("projections", "verify", "--json").code == ExitCode.UNSUCCESSFUL
    command("projections", "rebuild", "step_executions")
    rebuilt = command("projections", "rebuild", "workflow_runs", "--json")
    assert rebuilt.json["position"] >= view["position"]
    assert command("projections", "verify").code == ExitCode.DONE
    unknown = command("projections", "rebuild", "nothing")
    assert unknown.code == ExitCode.NOT_FOUND
    assert "there are workflow_runs" in unknown.err


def test_verify_tells_how_much_of_the_log_a_table_does_not_hold(
    command: Command, tmp_path: Path
) -> None:
    published(command, "greeting")
    head = command("projections", "status", "--json").json["items"][0]["head"]
    edit(tmp_path, "DELETE FROM workflow_definitions_v1")
    edit(
        tmp_path,
        "UPDATE projection_checkpoints SET position = 0 WHERE name = 'workflow_definitions'",
    )
    behind = command("projections", "verify", "workflow_definitions")
    assert behind.code == ExitCode.DONE
    assert f"0 rows at position 0; {head} events are not in the table yet" in behind.out
    (told,) = command("projections", "verify", "workflow_definitions", "--json").json
    assert told["lag_events"] == head


def test_a_gap_in_the_log_is_told_with_what_to_do(command: Command, tmp_path: Path) -> None:
    published(command, "greeting")
    view = command("execute", "greeting", "--input", '{"name": "A"}', "--watch", "--json").json
    edit(tmp_path, "DROP TRIGGER ledger_events_no_delete")
    edit(tmp_path, "DELETE FROM ledger_events WHERE originator_version = 4")
    for refused in (command("history", view["id"]), command("explain", view["id"])):
        assert refused.code == ExitCode.UNEXPECTED
        assert f"{view['id']} is damaged: version 5 follows version 3." in refused.err
        assert "back-up-and-restore" in refused.err
        assert "defect" not in refused.err
    rebuilt = command("projections", "rebuild", "workflow_runs")
    assert f"{view['id']} is damaged: version 5 follows version 3." in rebuilt.err
    states = {each["state"] for each in command("projections", "status", "--json").json["items"]}
    assert "rebuilding" not in states


@pytest.mark.parametrize("page", [1, 3, 2_000])
def test_verify_names_what_is_damaged_in_the_log(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(verification, "EVENTS_PER_PAGE", page)
    published(command, "greeting")
    for name in ("A", "B", "C"):
        command("execute", "greeting", "--input", json.dumps({"name": name}), "--watch")
    whole, cut, emptied = (each["id"] for each in command("list", "--json").json["items"])
    edit(tmp_path, "DROP TRIGGER ledger_events_no_delete")
    edit(tmp_path, "DROP TRIGGER ledger_events_no_update")
    at = "WHERE originator_version = 4 AND originator_id ="
    edit(tmp_path, f"DELETE FROM ledger_events {at} '{cut.replace('-', '')}'")
    edit(tmp_path, f"UPDATE ledger_events SET state = '{{}}' {at} '{emptied.replace('-', '')}'")
    found = command("projections", "verify")
    assert found.code == ExitCode.UNSUCCESSFUL
    assert "workflow_runs: equal, 1 rows" in found.out
    assert "without 2 that are damaged in the log" in found.out
    assert "workflow_statistics: not compared" in found.out
    assert f"log: execution {cut}, version 5 (execution." in found.out
    assert f"log: execution {emptied}, version 4 (execution." in found.out
    assert found.out.count("log: ") == 2
    assert whole not in found.out
    assert "backup" in found.err
    assert command("projections", "verify", "workflow_definitions").code == ExitCode.DONE
    (told,) = command("projections", "verify", "workflow_runs", "--json").json
    assert len(told["damages"]) == 2


def edit(folder: Path, statement: str) -> None:
    """Change the file by hand."""
    with closing(sqlite3.connect(folder / "flowledger.db")) as database:
        database.execute(statement)
        database.commit()


def begun(command: Command, execution: str) -> None:
    """Return once its step is live: who waits for an execution runs the others that are due."""
    published(command, "greeting")
    for _ in range(100):
        other = command("execute", "greeting", "--input", '{"name": "A"}', "--watch")
        assert other.code == ExitCode.DONE
        verbs = command("explain", execution, "--json").json["verbs"]
        if any(each["verb"] == "skip" and each["allowed"] for each in verbs):
            return
    raise AssertionError("the step does not begin")


def test_operators_pause_resume_and_settle(command: Command) -> None:
    published(command, "waiting")
    first = command("execute", "waiting", "--json").json["id"]
    begun(command, first)
    paused = command("pause", first, "--reason", "look at it", "--max-duration", "600", "--json")
    assert (paused.code, paused.json["sub_status"]) == (ExitCode.DONE, "paused")
    assert command("resume", first, "--json").json["sub_status"] == "executing"
    assert command("skip", first, "nowhere", "--reason", "why").code == ExitCode.NOT_FOUND
    assert command("skip", first, "w").code == ExitCode.INVALID
    done = command("complete", first, "w", "--reason", "enough", "--output", '{"n": 1}', "--watch")
    assert done.code == ExitCode.DONE
    assert '"n": 1' in done.out.replace("'", '"')
    told = command("history", first).out
    assert "paused, until" in told
    assert "at most: look at it" in told
    assert 'w completed by hand with {"n": 1}: enough' in told
    assert command("pause", first).code == ExitCode.CONFLICT


def test_a_fork_and_a_retry_begin_at_a_step(command: Command) -> None:
    published(command, "failing")
    first = command("execute", "failing", "--watch", "--json").json["id"]
    forked = command(
        "fork", first, "--from-step", "call", "--input", '{"x": 1}', "--watch", "--json"
    )
    assert (forked.code, forked.json["input_data"]) == (ExitCode.UNSUCCESSFUL, {"x": 1})
    assert forked.json["forked_from"]["execution_id"] == first
    told = command("history", forked.json["id"]).out
    assert f"forked from {first}" in told
    assert "keep is kept, completed" in told
    assert command("fork", first, "--from-step", "nowhere").code == ExitCode.CONFLICT
    retried = command("retry", first, "--from-step", "keep", "--watch", "--json")
    assert retried.json["attempt"] == 2
    assert command("history", first).out.count("keep started") == 2
