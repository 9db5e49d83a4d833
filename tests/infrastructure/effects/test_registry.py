"""The registry: every try has an outcome, storable and without secrets."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from application.steps import (
    Actions,
    Failed,
    SecretUse,
    StepContext,
    StepFailure,
    StepOutcome,
    Succeeded,
)
from domain.json_values import Json, JsonObject
from domain.mistakes import Mistake
from infrastructure.effects.call_api import CallApi
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.outbound_addresses import OutboundAllow
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import MASK, Secrets
from infrastructure.effects.variables import SetVariables
from tests.infrastructure.effects.local_servers import Received, answer, http_server, step_context

pytestmark = pytest.mark.anyio

CANARY = "canary/secret+1"


class Probe:
    """A handler made of one function."""

    name = "probe"
    touches_outside = True

    def __init__(self, work: Callable[[JsonObject, StepContext], Awaitable[Json]]) -> None:
        self._work = work

    def check(self, config: JsonObject, pointer: str) -> Iterator[Mistake]:
        yield Mistake(pointer, "probe", "")

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        return await self._work(config, context)


def registry(work: Callable[[JsonObject, StepContext], Awaitable[Json]]) -> Actions:
    return ActionRegistry([Probe(work), SetVariables()], Secrets({"KEY": CANARY}))


async def outcome_of(work: Callable[[], Json], *uses: SecretUse) -> StepOutcome:
    async def run(config: JsonObject, context: StepContext) -> Json:
        return work()

    return await registry(run).perform("probe", {"a": "${secret.KEY}"}, step_context(*uses))


def raises(error: BaseException) -> Callable[[], Json]:
    def work() -> Json:
        raise error

    return work


def test_names_and_mistakes_go_by_action() -> None:
    actions = registry(lambda config, context: asyncio.sleep(0))
    assert actions.names() == {"probe", "set_variables"}
    assert actions.check("probe", {}, "/c") == (Mistake("/c", "probe", ""),)
    unknown = actions.check("absent", {}, "/c")
    assert [mistake.code for mistake in unknown] == ["unknown_action"]
    assert "probe, set_variables" in unknown[0].message


def test_two_handlers_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="set_variables"):
        ActionRegistry([SetVariables(), SetVariables()], Secrets({}))


async def test_an_action_that_is_gone_fails_for_good() -> None:
    outcome = await ActionRegistry([], Secrets({})).perform("x", {}, step_context())
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retryable) == ("unknown_action", False)


async def test_output_is_success() -> None:
    assert await outcome_of(lambda: {"a": [1]}) == Succeeded({"a": [1]})


async def test_a_handler_that_keeps_its_output_cannot_change_the_outcome() -> None:
    kept: dict[str, Json] = {"a": [1]}
    outcome = await outcome_of(lambda: kept)

    class Refusal(Exception):
        output = kept

    def refuse() -> Json:
        raise Refusal

    failure = await outcome_of(refuse)
    kept["a"] = "changed"

    assert outcome == Succeeded({"a": [1]})
    assert isinstance(failure, Failed)
    assert failure.output == {"a": [1]}


@pytest.mark.parametrize(
    "output", [float("nan"), 2**60, "\0", "\ud800", {"a": {1, 2}}, "x" * 300_000, object(), (1,)]
)
async def test_an_output_that_cannot_be_kept_is_a_permanent_failure(output: Json) -> None:
    outcome = await outcome_of(lambda: output)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retryable) == ("output_not_storable", False)


@pytest.mark.parametrize(
    ("error", "code", "error_class", "retryable"),
    [
        (ValueError("x"), "value_error", "unknown", True),
        (TimeoutError(), "timeout_error", "timeout", True),
        (ConnectionResetError("x"), "connection_reset_error", "transient", True),
        (SystemExit(3), "system_exit", "unknown", True),
        (asyncio.CancelledError(), "cancelled_error", "unknown", True),
        (StepFailure("c", "m", error_class="permanent"), "c", "permanent", False),
        (StepFailure("c", "m", error_class="timeout", retryable=False), "c", "timeout", False),
    ],
)
async def test_whatever_is_raised_becomes_a_failure(
    error: BaseException, code: str, error_class: str, retryable: bool
) -> None:
    outcome = await outcome_of(raises(error))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.error_class, outcome.retryable) == (code, error_class, retryable)


async def test_an_exception_that_cannot_be_read_is_a_failure_all_the_same() -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise ValueError

    outcome = await outcome_of(raises(Unreadable()))
    assert isinstance(outcome, Failed)
    assert outcome.code == "unreadable"


async def test_attributes_of_an_exception_are_honoured_when_they_make_sense() -> None:
    error = RuntimeError("x\0\ud800" + "y" * 9_000)
    vars(error).update(code="Not A Code", retryable="maybe", error_class="odd", output={1})
    outcome = await outcome_of(raises(error))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.error_class, outcome.retryable) == (
        "runtime_error",
        "unknown",
        True,
    )
    assert outcome.output is None
    assert outcome.message.startswith("x\ufffd?yyy")
    assert len(outcome.message) < 2_300
    vars(error).update(code="own", retryable=False, error_class="transient", output={"a": 1})
    outcome = await outcome_of(raises(error))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.error_class, outcome.retryable, outcome.output) == (
        "own",
        "transient",
        False,
        {"a": 1},
    )


async def test_a_cancelled_step_is_cancelled() -> None:
    started = asyncio.Event()

    async def wait(config: JsonObject, context: StepContext) -> Json:
        started.set()
        await asyncio.Event().wait()
        return None

    task = asyncio.create_task(_perform(registry(wait)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _perform(actions: Actions) -> StepOutcome:
    return await actions.perform("probe", {}, step_context())


async def test_secrets_are_filled_in_and_taken_out_of_everything() -> None:
    seen: list[JsonObject] = []
    reports: list[Json] = []

    async def leak(config: JsonObject, context: StepContext) -> Json:
        seen.append(config)
        context.progress({"at": config["a"]})
        if config["fail"]:
            detail: JsonObject = {"d": config["a"]}
            raise StepFailure("x", f"bad {config['a']}", output=config["a"], detail=detail)
        return {"got": config["a"], "not": "${secret.KEY}"}

    actions = registry(leak)
    context = step_context(SecretUse("/a", "KEY"), progress=reports.append)
    config: JsonObject = {"a": "Bearer ${secret.KEY}", "fail": False}
    succeeded = await actions.perform("probe", config, context)
    assert succeeded == Succeeded({"got": f"Bearer {MASK}", "not": "${secret.KEY}"})
    failed = await actions.perform("probe", config | {"fail": True}, context)
    assert isinstance(failed, Failed)
    assert (failed.message, failed.output) == (f"bad Bearer {MASK}", f"Bearer {MASK}")
    assert failed.detail == {"d": f"Bearer {MASK}"}
    assert [one["a"] for one in seen] == [f"Bearer {CANARY}"] * 2
    assert reports == [{"at": f"Bearer {MASK}"}] * 2
    assert config["a"] == "Bearer ${secret.KEY}"


async def test_a_missing_secret_fails_before_the_work() -> None:
    outcome = await outcome_of(lambda: pytest.fail("must not run"), SecretUse("/a", "ABSENT"))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retryable) == ("secret_missing", False)


async def test_an_echoing_service_cannot_put_a_secret_into_the_ledger() -> None:
    def echo(request: Received) -> bytes:
        text = f"{request.target} {request.headers} {request.body!r}"
        return answer(500, text.encode(), content_type="text/plain", etag=request.target)

    outbound = Outbound(OutboundAllow.parse("127.0.0.1"))
    actions = ActionRegistry([CallApi(outbound)], Secrets({"KEY": CANARY}))
    async with http_server(echo) as server:
        config: JsonObject = {
            "url": server.url + "/${secret.KEY}",
            "method": "POST",
            "query": {"key": "${secret.KEY}"},
            "headers": {"Authorization": "${secret.KEY}"},
            "body": {"key": "${secret.KEY}", "data": "${secret.KEY}"},
        }
        pointers = ("/url", "/query/key", "/headers/Authorization", "/body/key")
        uses = [SecretUse(pointer, "KEY") for pointer in pointers]
        outcome = await actions.perform("call_api", config, step_context(*uses))
        assert server.received[0].headers["authorization"] == CANARY
    await outbound.aclose()
    assert isinstance(outcome, Failed)
    assert outcome.code == "http_status"
    assert "canary" not in repr(outcome)
    assert "${secret.KEY}" in repr(outcome.output)


@pytest.mark.parametrize(
    ("config", "output"),
    [
        ({"variables": {"a": 1, "b": None}}, {"a": 1, "b": None}),
        ({"name": "a", "value": [1]}, {"a": [1]}),
        ({"name": "a"}, {"a": None}),
    ],
)
async def test_set_variables_gives_them_on(config: JsonObject, output: Json) -> None:
    actions = ActionRegistry([SetVariables()], Secrets({}))
    assert actions.check("set_variables", config, "") == ()
    assert await actions.perform("set_variables", config, step_context()) == Succeeded(output)


def test_only_actions_that_compute_touch_nothing_outside() -> None:
    async def work(config: JsonObject, context: StepContext) -> Json:
        return None

    actions = registry(work)
    touching = ("probe", "agent:reader", "sub_workflow", "unknown")
    assert not actions.touches_outside("set_variables")
    assert all(actions.touches_outside(each) for each in touching)


@pytest.mark.parametrize("config", [{}, {"variables": 1}, {"name": 1}, {"variables": None}])
async def test_set_variables_says_what_is_missing(config: JsonObject) -> None:
    actions = ActionRegistry([SetVariables()], Secrets({}))
    assert len(actions.check("set_variables", config, "")) == 1
    outcome = await actions.perform("set_variables", config, step_context())
    assert isinstance(outcome, Failed)
    assert outcome.code == "bad_config"
