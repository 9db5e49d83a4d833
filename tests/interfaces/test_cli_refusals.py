"""What the command line refuses: in one sentence, with the next step and its exit code."""

import pytest

from interfaces.cli_failures import ExitCode
from tests.interfaces.test_cli import Command, command, published

__all__ = ["command"]  # the fixture


@pytest.mark.parametrize(
    "verb", ["watch", "cancel", "pause", "resume", "retry", "history", "diagram", "explain"]
)
def test_unknown_executions_are_told(command: Command, verb: str) -> None:
    ended = command(verb, "no-such-thing")
    assert ended.code == ExitCode.NOT_FOUND
    assert ended.err.startswith("Error: ")
    assert "flowledger list" in ended.err


def test_what_is_not_there_is_told_with_the_command_that_shows_what_is(command: Command) -> None:
    published(command, "waiting")
    execution = command("execute", "waiting", "--json").json["id"]
    steps = f"`flowledger diagram {execution}` shows its steps"
    letters = "`flowledger dead-letters list --all` shows which there are."
    for arguments, code, next_step in (
        (("agents", "show", "none"), ExitCode.NOT_FOUND, "`flowledger agents list`"),
        (("dead-letters", "show", "none"), ExitCode.NOT_FOUND, letters),
        (("workflow", "show", "none"), ExitCode.NOT_FOUND, "`flowledger workflow list`"),
        (("execute", "none"), ExitCode.NOT_FOUND, "`flowledger workflow list`"),
        (("skip", execution, "none", "--reason", "r"), ExitCode.NOT_FOUND, steps),
        (("skip", "none", "w", "--reason", "r"), ExitCode.NOT_FOUND, "`flowledger list`"),
        (("answer", execution, "retry", "--question", "q"), ExitCode.NOT_FOUND, "`flowledger que"),
        (("answer", "none", "retry"), ExitCode.NOT_FOUND, "`flowledger list`"),
        (("fork", execution, "--from-step", "none"), ExitCode.CONFLICT, steps),
        (("list", "--status", "none"), ExitCode.INVALID, "Correct it, then try again; --help"),
        (("execute", "waiting", "--priority", "77"), ExitCode.INVALID, "Correct it, then try"),
    ):
        ended = command(*arguments)
        assert ended.code == code, arguments
        sentence, told = ended.err.splitlines()
        assert sentence.startswith("Error: ")
        assert told.startswith(next_step), arguments


@pytest.mark.parametrize("name", ["none", "../up", "a/b", "a?b", "%2e%2e", "wf-none-1"])
def test_unknown_workflows_are_told(command: Command, name: str) -> None:
    assert command("workflow", "show", name).code in (ExitCode.NOT_FOUND, ExitCode.INVALID)
    assert command("execute", name).code in (ExitCode.NOT_FOUND, ExitCode.INVALID)


def test_a_database_that_cannot_be_used_is_named(command: Command) -> None:
    ended = command("list", "--database", "sqlite:///nodir/x.db")
    assert ended.code == ExitCode.NOT_READY
    assert "The database sqlite:///nodir/x.db cannot be used: " in ended.err
    assert "`flowledger doctor` looks closer" in ended.err
    url = "postgresql://me:hidden@127.0.0.1:1/x?connect_timeout=1&password=hidden"
    ended = command("list", "--database", url)
    assert ended.code == ExitCode.NOT_READY
    assert "The database postgresql://me@127.0.0.1:1/x cannot be used: " in ended.err
    assert "hidden" not in ended.err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--actor", "two\nlines"), ("--actor", "\udcff"), ("--actor", " "), ("--actor", "a" * 129)]
    + [("--key", value) for value in ("größe", "two words", "\udcff", "", "k" * 256)],
)
@pytest.mark.parametrize("url", [(), ("--url", "http://127.0.0.1:1")], ids=["file", "server"])
def test_a_name_or_a_key_that_cannot_be_sent_is_told(
    command: Command, option: str, value: str, url: tuple[str, ...]
) -> None:
    ended = command("execute", "greeting", option, value, *url)
    assert (ended.code, ended.out) == (ExitCode.INVALID, "")
    sentence, next_step = ended.err.splitlines()
    assert sentence.startswith(f"Error: {option} ")
    assert "visible" in next_step


def test_usage_errors_end_with_two(command: Command) -> None:
    for arguments in (
        ("execute",),
        ("no-such-command",),
        ("list", "--limit", "0"),
        ("list", "--label", "x"),
        ("list", "--url", "http://127.0.0.1:1", "--database", "a.db"),
        ("list", "--url", "ftp://here"),
        ("list", "--database", "mysql://here"),
    ):
        ended = command(*arguments)
        assert ended.code == ExitCode.INVALID, arguments
        assert ended.err
        assert "Traceback" not in ended.err


def test_no_server_is_told(command: Command) -> None:
    ended = command("list", "--url", "http://127.0.0.1:1")
    assert ended.code == ExitCode.NOT_READY
    assert "No answer from http://127.0.0.1:1" in ended.err
    assert "flowledger serve" in ended.err
