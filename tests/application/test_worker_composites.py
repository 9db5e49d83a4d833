"""The engine over real stores with steps that run side by side, and after a crash among them."""

import pytest

from domain import events as ev
from domain.json_values import Json, JsonObject
from tests.engine import CALLER, Deeds, Process, definition, process, step, until

pytestmark = pytest.mark.anyio


def fan_out(items: int = 20) -> JsonObject:
    """A parallel of three, a loop over `items` five at a time, a check of what came out."""
    loop: JsonObject = {
        "collection": list(range(items)),
        "loop_body": ["p"],
        "execution_mode": "parallel",
        "max_parallelism": 5,
    }
    checked: JsonObject = {
        "type": "validate",
        "data_source": "${each.output}",
        "validation_schema": {"properties": {"total_count": {"const": items}}},
    }
    flow = definition(
        fan={"type": "parallel", "parallel_steps": ["a", "b", "c"]},
        each={"type": "loop", "loop_config": loop},
        check=checked,
    )
    steps = flow["steps"]
    assert isinstance(steps, dict)
    inner: dict[str, Json] = {name: step(config={"name": name}) for name in "abc"}
    inner["p"] = step(config={"item": "${loop.item}"})
    output: JsonObject = {"fan": "${fan.output}", "n": "${each.output}"}
    return {**flow, "steps": steps | inner, "output": output}


async def test_a_parallel_and_a_loop_run_to_their_end(ledger_url: str) -> None:
    async with process(ledger_url) as engine:
        execution = await engine.run(fan_out())
        view = await engine.ended(execution)
        assert (view.status, view.error_message) == ("COMPLETED", None)
        assert view.output == {
            "fan": {name: {"ok": True, "name": name} for name in "abc"},
            "n": {
                "iterations": [{"ok": True, "item": number} for number in range(20)],
                "total_count": 20,
            },
        }
        assert set(engine.deeds.per_step().values()) == {1}
        assert len(engine.deeds.done) == 23
        assert (view.progress.total, view.progress.done) == (6, 6)
        open_at_once = most = 0
        for fact in await engine.facts(execution):
            open_at_once += isinstance(fact, ev.IterationStarted)
            open_at_once -= isinstance(fact, ev.IterationFinished)
            most = max(most, open_at_once)
        assert most == 5


async def _crash_among_the_iterations(engine: Process) -> None:
    await until(lambda: len(engine.deeds.finished) >= 3 and len(engine.deeds.done) >= 5)
    engine.queue.cut = True


async def test_a_crash_does_not_run_finished_iterations_again(ledger_url: str) -> None:
    """The second process finds the log of the first and goes on with what is not finished."""
    loop: JsonObject = {"collection": ["x", "x", "x", "y", "y"], "loop_body": ["p"]}
    side_by_side: JsonObject = {**loop, "execution_mode": "parallel"}
    flow = definition(each={"type": "loop", "loop_config": side_by_side})
    steps = flow["steps"]
    assert isinstance(steps, dict)
    held = step("hold", config={"gate": "${loop.item}"})
    flow = {**flow, "steps": steps | {"p": held}}
    first, second = Deeds(), Deeds()
    first.open("x")
    second.open("y")
    async with process(ledger_url, first, lease_seconds=1.0, grace_seconds=0.0) as engine:
        execution = await engine.run(flow)
        await _crash_among_the_iterations(engine)
        ended = [f for f in await engine.facts(execution) if isinstance(f, ev.IterationFinished)]
    async with process(ledger_url, second, lease_seconds=1.0) as engine:
        second.open("x")  # one whose result was on its way when the process went
        view = await engine.ended(execution)
        assert view.status == "COMPLETED"
    again = {deed.path for deed in second.done}
    assert again.isdisjoint({f"each[{fact.index}]/p" for fact in ended})
    assert {"each[3]/p", "each[4]/p"} <= again


async def test_a_cancel_interrupts_every_child(ledger_url: str) -> None:
    flow = definition(fan={"type": "parallel", "parallel_steps": ["a", "b"]})
    steps = flow["steps"]
    assert isinstance(steps, dict)
    flow = {**flow, "steps": steps | {"a": step("hold"), "b": step("hold")}}
    async with process(ledger_url) as engine:
        execution = await engine.run(flow)
        await engine.deeds.count(2)
        await engine.control.cancel(CALLER, execution.id, "enough")
        await until(lambda: len(engine.deeds.interrupted) == 2)
        view = await engine.ended(execution)
        assert view.status == "CANCELLED"
