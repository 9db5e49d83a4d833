"""Commands about agents on the embedded file."""

import json
from pathlib import Path

import pytest

from infrastructure.sealing import Keys
from interfaces.cli import run
from interfaces.cli_failures import ExitCode


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(arguments)
    return (code, *capfd.readouterr())


def test_an_agent_is_added_listed_shown_and_removed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = printed(capfd, "make-key")[1].strip()
    new = printed(capfd, "make-key")[1].strip()
    assert repr(Keys.parse(f"{new},{old}")) == "Keys(2)"
    monkeypatch.setenv("FLOWLEDGER_ENCRYPTION_KEY", old)
    Path("token").write_text("a-token-in-a-file\n")
    url = "https://scorer.example"
    code, out, err = printed(
        capfd, "agents", "add", "scorer", "--agent-url", url, "--bearer", "@token"
    )
    assert code == ExitCode.DONE, err
    assert out.startswith("Registered scorer (")
    code, out, _ = printed(capfd, "agents", "list")
    assert "scorer" in out
    assert "1 of 1" in out
    code, out, _ = printed(capfd, "agents", "show", "scorer")
    assert "auth_config: token ***" in out
    assert "a-token-in-a-file" not in out
    monkeypatch.setenv("FLOWLEDGER_ENCRYPTION_KEY", f"{new},{old}")
    assert printed(capfd, "agents", "reseal")[1].startswith("1 of 1 credentials")
    monkeypatch.setenv("FLOWLEDGER_ENCRYPTION_KEY", new)
    shown = json.loads(printed(capfd, "agents", "reseal", "--json")[1])
    assert shown == {"credentials": 1, "resealed": 0}
    assert printed(capfd, "agents", "remove", "scorer")[1] == "Agent scorer is deleted.\n"
    assert printed(capfd, "agents", "show", "scorer")[0] == ExitCode.NOT_FOUND


def test_a_lost_key_is_said_without_a_traceback(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLEDGER_ENCRYPTION_KEY", printed(capfd, "make-key")[1].strip())
    Path("key").write_text("the-api-key")
    arguments = ("agents", "add", "a", "--transport", "pull", "--api-key", "@key")
    assert printed(capfd, *arguments)[0] == ExitCode.DONE
    monkeypatch.setenv("FLOWLEDGER_ENCRYPTION_KEY", printed(capfd, "make-key")[1].strip())
    code, _, err = printed(capfd, "agents", "reseal")
    assert code == ExitCode.INVALID
    assert "FLOWLEDGER_ENCRYPTION_KEY" in err
    monkeypatch.setenv("FLOWLEDGER_ENCRYPTION_KEY", "no-key-at-all")
    code, _, err = printed(capfd, "agents", "list")
    assert code == ExitCode.INVALID
    assert "no-key-at-all" not in err


def test_a_credential_on_the_command_line_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    url = "https://scorer.example"
    code, _, err = printed(
        capfd, "agents", "add", "scorer", "--agent-url", url, "--bearer", "a-literal-token"
    )
    assert code == ExitCode.INVALID
    assert "stdin" in err
    code, _, err = printed(
        capfd, "agents", "add", "scorer", "--agent-url", url, "--bearer", "${secret.SCORER}"
    )
    assert code == ExitCode.DONE, err
    assert json.loads(printed(capfd, "agents", "show", "scorer", "--json")[1])["auth_config"] == {
        "token": "${secret.SCORER}"
    }


def test_doctor_names_agents_that_need_kafka_where_there_is_none(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def found() -> tuple[int, str]:
        code, out, _ = printed(capfd, "doctor", "--json")
        checks = {each["check"]: each for each in json.loads(out)["checks"]}
        return code, f"{checks['agents']['seen']} {checks['agents']['advice']}"

    printed(capfd, "agents", "add", "asks", "--transport", "pull")
    assert found() == (ExitCode.DONE, "work reaches every active agent ")
    printed(capfd, "agents", "add", "listens", "--transport", "kafka")
    code, told = found()
    assert code == ExitCode.UNSUCCESSFUL
    assert "'listens'" in told
    assert "FLOWLEDGER_KAFKA_BROKERS" in told
    printed(capfd, "agents", "remove", "listens")
    assert found()[0] == ExitCode.DONE
