"""The server's part of recovery: read at start, refused with every mistake, and obeyed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domain.error_classes import DEFAULT_LISTS
from domain.recovery_config import RecoveryConfig
from domain.recovery_rules import DEFAULT_RULES
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.recovery_settings import BadRecoverySettings, recovery_rules
from tests.e2e.samples import walk, write_files
from tests.interfaces.test_cli import Ended, command

__all__ = ["command"]

ACTIONS = frozenset({"call_api", "set_variables"})
PAGE = "docs/how-to/set-up-recovery.md"
Command = Callable[..., Ended]


def refusal(config: str = "", rules: Path | None = None) -> str:
    with pytest.raises(BadRecoverySettings) as refused:
        recovery_rules(config, rules, ACTIONS)
    return str(refused.value)


def test_without_settings_there_are_the_built_in_rules() -> None:
    assert recovery_rules("", None, ACTIONS) == DEFAULT_RULES
    assert recovery_rules(" {} ", None, ACTIONS).config == RecoveryConfig()


def test_settings_and_file_are_read(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    rules = recovery_rules('{"retry_attempts": 7}', tmp_path / "rules.yaml", ACTIONS)
    assert rules.config == RecoveryConfig(retry_attempts=7)
    assert [each.id for each in rules.alternatives] == ["smaller-amount", "note-it-down"]
    assert rules.alternatives[0].changes[0].multiply == 0.5
    assert rules.errors.transient == ("timeout", "connection refused", "try again later")
    only = tmp_path / "rules.json"
    only.write_text('{"errors": {"permanent": []}}')
    errors = recovery_rules("", only, ACTIONS).errors
    assert (errors.permanent, errors.transient) == ((), DEFAULT_LISTS.transient)


def test_every_mistake_in_the_file_is_named_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        """
errors:
  permanent: timeout
  fatal: []
  transient: [""]
alternatives:
  - {id: a, do: {action: no_such_action}}
  - {id: a, when: {class: odd}, do: {action: set_variables}, colour: red}
  - {rule: b}
retries: 3
"""
    )
    said = refusal(rules=file)
    assert said.startswith("FLOWLEDGER_RECOVERY_RULES has 9 mistakes:\n")
    for place in (
        "3: /errors/permanent: ",
        "4: /errors/fatal: ",
        "5: /errors/transient/0: ",
        "7: /alternatives/0/do/action: 'no_such_action' is not a registered action",
        "8: /alternatives/1: The alternative 'a' is given twice. [duplicate_id]",
        "8: /alternatives/1/when/class: ",
        "8: /alternatives/1/colour: ",
        "9: /alternatives/2/rule: ",
        "10: /retries: ",
    ):
        assert f"  {file}:{place}" in said, said


@pytest.mark.parametrize("text", ["[]", "word", "1"])
def test_a_file_that_holds_no_rules_is_refused(tmp_path: Path, text: str) -> None:
    for name in ("rules.json", "rules.yaml"):
        file = tmp_path / name
        file.write_text(text if name.endswith("yaml") or text != "word" else '"word"')
        assert "not_an_object" in refusal(rules=file)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"a: &x 1", ExitCode.INVALID),
        (b"errors: {}\nerrors: {}", ExitCode.INVALID),
        (b"#" * 600_000, ExitCode.INVALID),
        (b"\xff\xfe", ExitCode.INVALID),
        (None, ExitCode.NOT_FOUND),
    ],
)
def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, content: bytes | None, code: ExitCode
) -> None:
    file = tmp_path / "rules.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CommandFailed) as refused:
        recovery_rules("", file, ACTIONS)
    assert refused.value.code == code
    assert str(file) in refused.value.text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"retry_attempts": -1}', "/retry_attempts: "),
        ('{"retries": 1}', "/retries: "),
        ('{"base_retry_delay_ms": 9, "max_retry_delay_ms": 1}', "/base_retry_delay_ms: "),
        ("[1]", "(all): "),
        ('{"retry_attempts": 1, "retry_attempts": 2}', "FLOWLEDGER_RECOVERY is no JSON object"),
        ("{", "FLOWLEDGER_RECOVERY is no JSON object"),
        ('{"backoff_multiplier": NaN}', "FLOWLEDGER_RECOVERY is no JSON object"),
    ],
)
def test_mistakes_in_the_settings_are_named(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_start_with_mistakes_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWLEDGER_RECOVERY", '{"retry_attempts": 1000}')
    ended = command("list")
    assert (ended.code, ended.out) == (ExitCode.INVALID, "")
    assert "Error: FLOWLEDGER_RECOVERY has a mistake:\n  /retry_attempts: " in ended.err
    monkeypatch.delenv("FLOWLEDGER_RECOVERY")
    monkeypatch.setenv("FLOWLEDGER_RECOVERY_RULES", "none.yaml")
    missing = command("list")
    assert missing.code == ExitCode.NOT_FOUND
    assert str(tmp_path / "none.yaml") in missing.err


def test_the_documented_server_recovers_as_it_is_set(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_files(PAGE, tmp_path)
    ended: Any = None
    for line in walk(PAGE).splitlines():
        words = line.split(maxsplit=1)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            monkeypatch.setenv(name, value.strip("'"))
        else:
            options = ["--json"] if "execute" in line else []
            ended = command(*words[1].split(), *options)
            assert ended.code == ExitCode.DONE, ended.err
    assert ended.json["output"] == {"booked": "later"}
    assert ended.json["steps_recovered"] == 1
    events = command("history", ended.json["id"], "--json").json["items"]
    types = [event["type"] for event in events]
    assert types.count("retry_scheduled") == 1
    (chosen,) = [each["data"]["id"] for each in events if each["type"] == "alternative_selected"]
    assert chosen == "note-it-down"
    own = command("execute", "later", "--no-recovery", "--watch", "--json")
    assert own.json["status"] == "FAILED"
