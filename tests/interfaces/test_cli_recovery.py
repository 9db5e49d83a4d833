"""Questions, answers and recovery settings from the command line: on the file, and on a server."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx2
import pytest
import uvicorn

from infrastructure.settings import Settings
from interfaces.bootstrap import open_services
from interfaces.cli_failures import ExitCode
from interfaces.http.app import create_app
from tests.interfaces.test_cli import Ended, command

__all__ = ["command"]

UNSURE = """
name: unsure
start_step: call
steps:
  call:
    action: call_api
    config: {url: "http://127.0.0.1:9/"}
    critical: false
    alternatives:
      - id: note
        when: {code: never}
        do: {action: set_variables}
        input: [{path: variables, set: {a: 1}}]
    ask: true
    next_step: last
  last: {action: set_variables, config: {variables: {done: true}}}
"""
PLAIN = """
name: plain
start_step: call
steps:
  call: {action: call_api, config: {url: "http://127.0.0.1:9/"}}
"""
Command = Callable[..., Ended]


class Place(NamedTuple):
    """Where commands go: to a server, or (no address) to the embedded file."""

    run: Command
    address: str | None

    def __call__(self, *arguments: str) -> Ended:
        return self.run(*arguments, *(["--url", self.address] if self.address else []))


@contextmanager
def a_server(file: Path) -> Iterator[str]:
    """The application over a file on a port of this process, until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        services = await open_services(Settings(database_url=f"sqlite:///{file}"))
        config = uvicorn.Config(create_app(services), log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            ready.set()
            await anyio.to_thread.run_sync(stop.wait)
            server.should_exit = True
        await services.close()

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(30)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()


@pytest.fixture(params=["file", "server"])
def ask(command: Command, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Runs a command on the embedded file, or on a server."""
    (tmp_path / "unsure.yaml").write_text(UNSURE)
    (tmp_path / "plain.yaml").write_text(PLAIN)
    if request.param == "file":
        yield Place(command, None)
        return
    with a_server(tmp_path / "served.db") as address:
        yield Place(command, address)


def asked(ask: Place) -> dict[str, Any]:
    """A question that waits for its answer."""
    assert ask("workflow", "publish", "unsure.yaml").code == ExitCode.DONE
    execution = ask("execute", "unsure", "--json").json["id"]
    if ask.address is not None:
        wait_for_question(ask.address, execution)
    else:  # commands on a file end too soon to see it through
        with a_server(Path("flowledger.db").absolute()) as address:
            wait_for_question(address, execution)
    question: dict[str, Any] = ask("questions", execution, "--json").json["items"][0]
    return question


def wait_for_question(address: str, execution: str) -> None:
    headers: dict[str, str] = {}
    with httpx2.Client(base_url=f"{address}/api/v1") as client:
        for _ in range(100):
            view = client.get(f"/executions/{execution}", headers=headers)
            if view.status_code == 200 and view.json()["sub_status"] == "awaiting_answer":
                return
            etag = view.headers.get("etag", "")
            headers = {"If-None-Match": etag, "Prefer": "wait=10"}
    raise AssertionError("nobody was asked")


def test_a_question_is_shown_and_answered(ask: Place) -> None:
    question = asked(ask)
    execution = question["execution_id"]
    shown = ask("questions", execution)
    assert shown.code == ExitCode.DONE
    assert question["question_id"] in shown.out
    assert "Retry step 'call'? It failed: " in shown.out
    assert "Answers: retry, skip, abort, alternative:note" in shown.out
    assert f"flowledger answer {execution} retry" in shown.err
    open_ones = ask("questions", "--json").json
    assert [each["question_id"] for each in open_ones["items"]] == [question["question_id"]]
    assert "1 of 1" in ask("questions").out

    ended = ask("answer", execution, "please skip it", "--actor", "ann", "--watch", "--json")
    assert (ended.code, ended.json["status"], ended.json["partial"]) == (0, "COMPLETED", True)
    told = ask("questions", execution).out
    assert "taken for    skip (text)" in told
    assert "answered by  ann" in told
    late = ask("answer", execution, "retry")
    assert (late.code, late.out) == (ExitCode.CONFLICT, "")
    assert "Error: " in late.err


def test_an_answer_names_its_question(ask: Place) -> None:
    question = asked(ask)
    where = (question["execution_id"], "alternative:note", "--question")
    unknown = ask("answer", *where, "q-none-1")
    assert unknown.code == ExitCode.NOT_FOUND
    ended = ask("answer", *where, question["question_id"], "--watch", "--json", "--key", "k-1")
    assert (ended.code, ended.json["partial"]) == (0, False)
    assert ended.json["steps_recovered"] == 1
    again = ask("answer", *where, question["question_id"], "--json", "--key", "k-1")
    assert again.code == ExitCode.DONE
    history = ask("history", question["execution_id"]).out
    assert "call recovered by user fulfillment" in history


def test_bad_answers_are_told(ask: Place) -> None:
    execution = asked(ask)["execution_id"]
    assert ask("answer", execution, "").code == ExitCode.INVALID
    other = ask("answer", execution, "alternative:none")
    assert other.code == ExitCode.INVALID
    assert "alternative" in other.err
    assert ask("answer", execution).code == ExitCode.INVALID
    assert ask("answer", "no-such-thing", "retry").code == ExitCode.NOT_FOUND
    assert ask("questions", "no-such-thing").code == ExitCode.NOT_FOUND
    assert ask("questions", "--limit", "0").code == ExitCode.INVALID


def test_nothing_asked_is_said(ask: Place) -> None:
    assert ask("questions", "--json").json["items"] == []
    assert ask("workflow", "publish", "plain.yaml").code == ExitCode.DONE
    execution = ask("execute", "plain", "--watch", "--json").json["id"]
    assert ask("questions", execution).out == "Nobody was asked.\n"


def test_recovery_settings_arrive(ask: Place) -> None:
    assert ask("workflow", "publish", "plain.yaml").code == ExitCode.DONE

    def settings(*options: str) -> Any:
        view = ask("execute", "plain", "--json", "--delay", "600", *options).json
        (requested, *_) = ask("history", view["id"], "--json").json["items"]
        return view["atomic_mode"], requested["data"]["recovery"]

    mode, recovery = settings(
        *("--atomic-mode", "Lenient", "--max-recovery-time-ms", "5000"),
        *("--no-enable-alternative-flows", "--enable-user-fulfillment", "--retry-attempts", "0"),
    )
    assert mode == "lenient"
    chosen = {
        "max_recovery_time_ms": 5_000,
        "enable_alternative_flows": False,
        "enable_user_fulfillment": True,
        "retry_attempts": 0,
    }
    assert recovery | chosen == recovery
    assert recovery["base_retry_delay_ms"] == 1_000
    assert settings() == ("strict", None)
    mode, recovery = settings("--recovery")
    assert (recovery["retry_attempts"], recovery["max_recovery_time_ms"]) == (3, 30_000)
    mode, recovery = settings("--no-recovery", "--atomic-mode", "conditional")
    assert (mode, recovery["retry_attempts"]) == ("conditional", 0)
    assert recovery["enable_alternative_flows"] is recovery["enable_user_fulfillment"] is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--no-recovery", "--retry-attempts", "2"), "--retry-attempts"),
        (("--no-recovery", "--enable-user-fulfillment"), "--enable-user-fulfillment"),
        (("--retry-attempts", "-1"), "--retry-attempts"),
        (("--retry-attempts", "101"), "less than or equal to 100"),
        (("--retry-attempts", "many"), "--retry-attempts"),
        (("--max-recovery-time-ms", "-5"), "--max-recovery-time-ms"),
        (("--max-recovery-time-ms", "9" * 30), "--max-recovery-time-ms"),
        (("--atomic-mode", "loose"), "loose"),
        (("--atomic-mode",), "--atomic-mode"),
    ],
)
def test_bad_settings_are_told(command: Command, options: tuple[str, ...], said: str) -> None:
    assert command("workflow", "publish", "greeting.yaml").code == ExitCode.DONE
    ended = command("execute", "greeting", *options)
    assert ended.code == ExitCode.INVALID
    assert said in ended.err
    assert ended.out == ""
    assert command("list", "--json").json["total"] == 0
