"""The operator's own functions as actions."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import cast

import pytest

from application.steps import Failed, StepContext, Succeeded
from domain.json_values import Json, JsonObject
from infrastructure.effects.blocking_calls import BlockingCalls
from infrastructure.effects.custom_actions import (
    ActionsNotLoaded,
    CustomAction,
    load_custom_actions,
)
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from tests.infrastructure.effects.local_servers import step_context

pytestmark = pytest.mark.anyio

SOURCE = """
import dataclasses, threading
from os.path import join as imported

@dataclasses.dataclass
class Refusal(Exception):
    code: str = "card_declined"
    retryable: bool = False

class PaymentHTTPError(Exception):
    pass

def thread_name(config, context):
    return threading.current_thread().name != "MainThread"

async def describe(config, context):
    return {"key": context.idempotency_key, "config": config, "input": context.workflow_input}

async def change(config, context):
    config["list"].append(1)
    context.workflow_input["new"] = 1
    return config

def refuse(config, context):
    raise Refusal()

async def fail(config, context):
    raise PaymentHTTPError("no answer from the bank")

def report(config, context):
    context.progress({"done": 1})

def leave(config, context):
    raise SystemExit("bye")

def helper(text):
    return text

def _private(config, context):
    return None

class Callable:
    def __call__(self, config, context):
        return None
"""


def actions_of(tmp_path: Path, source: str = SOURCE) -> ActionRegistry:
    file = tmp_path / "my_actions.py"
    file.write_text(source)
    return ActionRegistry(
        load_custom_actions([str(file)], BlockingCalls(), installed=()), Secrets({})
    )


async def test_public_functions_of_config_and_context_are_actions(tmp_path: Path) -> None:
    names = {"thread_name", "describe", "change", "refuse", "fail", "report", "leave"}
    assert actions_of(tmp_path).names() == names


async def test_async_functions_get_config_and_context(tmp_path: Path) -> None:
    context = step_context(workflow_input={"a": 1})
    outcome = await actions_of(tmp_path).perform("describe", {"x": [1]}, context)
    assert outcome == Succeeded(
        {"key": context.idempotency_key, "config": {"x": [1]}, "input": {"a": 1}}
    )


async def test_sync_functions_run_beside_the_loop_and_report_into_it(tmp_path: Path) -> None:
    actions = actions_of(tmp_path)
    assert await actions.perform("thread_name", {}, step_context()) == Succeeded(True)
    reports: list[tuple[Json, str]] = []

    def progress(value: Json) -> None:
        reports.append((value, threading.current_thread().name))

    assert await actions.perform("report", {}, step_context(progress=progress)) == Succeeded(None)
    assert reports == [({"done": 1}, threading.current_thread().name)]


async def test_a_function_cannot_change_what_it_was_given(tmp_path: Path) -> None:
    config: JsonObject = {"list": [0]}
    context = step_context(workflow_input={"a": 1})
    outcome = await actions_of(tmp_path).perform("change", config, context)
    assert outcome == Succeeded({"list": [0, 1]})
    assert (config, context.shared_input) == ({"list": [0]}, {"a": 1})


async def test_an_input_that_a_function_does_not_ask_for_is_not_copied(tmp_path: Path) -> None:
    """A loop's every item would pay for all of them; what JSON cannot hold cannot be copied."""
    no_json = cast(JsonObject, {"items": object()})
    actions, context = actions_of(tmp_path), step_context(workflow_input=no_json)
    assert await actions.perform("thread_name", {}, context) == Succeeded(True)
    assert isinstance(await actions.perform("describe", {}, context), Failed)


async def test_exceptions_become_failures_named_after_their_class(tmp_path: Path) -> None:
    actions = actions_of(tmp_path)
    refused = await actions.perform("refuse", {}, step_context())
    assert isinstance(refused, Failed)
    assert (refused.code, refused.retryable) == ("card_declined", False)
    failed = await actions.perform("fail", {}, step_context())
    assert isinstance(failed, Failed)
    assert (failed.code, failed.message, failed.error_class, failed.retryable) == (
        "payment_http_error",
        "no answer from the bank",
        "unknown",
        True,
    )
    assert isinstance(failed.detail, dict)
    assert str(failed.detail["where"]).startswith("my_actions.py:")
    left = await actions.perform("leave", {}, step_context())
    assert isinstance(left, Failed)
    assert left.code == "system_exit"


async def test_a_cancelled_blocking_function_ends_alone_and_keeps_its_place() -> None:
    started, go_on, ended = threading.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def block(config: JsonObject, context: StepContext) -> Json:
        started.set()
        go_on.wait(20)
        loop.call_soon_threadsafe(ended.set)
        return "late"

    blocking = BlockingCalls(threads_max=1)
    first = asyncio.create_task(_run(CustomAction("block", block, "test", blocking)))
    await asyncio.to_thread(started.wait, 20)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(blocking.run(lambda: "second"))
    await asyncio.sleep(0)
    assert not second.done()
    go_on.set()
    await ended.wait()
    assert await second == "second"


async def _run(action: CustomAction) -> Json:
    return await action({}, step_context())


async def test_blocking_calls_hand_over_results_and_exceptions() -> None:
    blocking = BlockingCalls(threads_max=2)
    results = await asyncio.gather(*(blocking.run(partial(abs, -n)) for n in range(20)))
    assert results == [*range(20)]
    with pytest.raises(RuntimeError, match="StopIteration"):
        await blocking.run(lambda: next(iter(())))


def test_a_module_and_an_entry_point_are_sources_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "company_steps.py").write_text("def one(config, context): return 1\n")
    (tmp_path / "vendor_steps.py").write_text("def two(config, context): return 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed = [
        EntryPoint("three", "vendor_steps:two", "flowledger.actions"),
        EntryPoint("all", "vendor_steps", "flowledger.actions"),
    ]
    loaded = load_custom_actions(["company_steps", " "], BlockingCalls(), installed)
    assert [action.name for action in loaded] == ["one", "three", "two"]


def test_installed_packages_of_this_environment_can_be_read() -> None:
    assert all(action.name for action in load_custom_actions([], BlockingCalls()))


Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, source: str) -> str:
        (tmp_path / name).write_text(source)
        return str(tmp_path / name)

    return write


def test_a_source_that_cannot_be_used_stops_the_start(write: Write) -> None:
    ok = "def mine(config, context): return 1\n"
    for sources, message in (
        (["absent.py"], "no such file"),
        (["no_such_module_here"], "cannot be imported"),
        ([write("broken.py", "def x(:\n")], "SyntaxError"),
        ([write("exits.py", "raise SystemExit(3)\n")], "SystemExit"),
        ([write("raises.py", "1 / 0\n")], "ZeroDivisionError"),
        ([write("empty.py", "def helper(x): return x\n")], "holds no action"),
        ([write("taken.py", "def wait(config, context): return 1\n")], "built-in"),
        ([write("a.py", ok), write("b.py", ok)], "already an action of"),
        ([write("umlaut.py", "def größe(config, context): return 1\n")], "no action name"),
    ):
        with pytest.raises(ActionsNotLoaded, match=message) as caught:
            load_custom_actions(sources, BlockingCalls(), installed=())
        assert sources[-1] in str(caught.value)


def test_a_broken_entry_point_stops_the_start() -> None:
    for value, message in (("no_such_module_here", "cannot be loaded"), ("sys:path", "must be a")):
        entry = EntryPoint("x", value, "flowledger.actions")
        with pytest.raises(ActionsNotLoaded, match=message):
            load_custom_actions([], BlockingCalls(), [entry])


async def test_the_sample_of_the_how_to_runs(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "how-to" / "write-an-action.md"
    blocks = page.read_text().split("```python\n")[1:]
    sources = [block.split("```")[0] for block in blocks]
    actions = actions_of(tmp_path, "\n".join(sources))
    outcome = await actions.perform("add_tax", {"net": 100, "rate": 0.2}, step_context())
    assert outcome == Succeeded({"gross": 120.0})
