"""Workflows: published, found, revised, retired; the same request twice is one command."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from application.callers import Caller
from domain.errors import (
    Invalid,
    InvalidDefinition,
    KeyReused,
    NotFound,
    PreconditionFailed,
    StateConflict,
)
from domain.json_values import JsonObject
from tests.engine import CALLER, Process, chain, process

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(ledger_url: str) -> AsyncIterator[Process]:
    async with process(ledger_url, working=False) as opened:
        yield opened


def keyed(key: str, fingerprint: str = "same") -> Caller:
    return Caller(actor="a", route="workflows", idempotency_key=key, fingerprint=fingerprint)


async def test_publishing_a_name_again_makes_the_next_version(engine: Process) -> None:
    numbers = [(await engine.workflows.publish(CALLER, chain(n))).number for n in (1, 2, 3)]
    state, newest = await engine.workflows.find("default", "chain")

    assert (numbers, newest) == ([1, 2, 3], 3)
    assert [version.source for version in state.versions] == [chain(n) for n in (1, 2, 3)]


async def test_a_workflow_is_found_by_name_version_and_id(engine: Process) -> None:
    published = await engine.workflows.publish(CALLER, chain(1))
    await engine.workflows.publish(CALLER, chain(2))
    found = {
        ref: (await engine.workflows.find("default", ref))[1]
        for ref in ("chain", "wf-chain-1", "wf-chain-2", str(published.state.id))
    }
    assert found == {"chain": 2, "wf-chain-1": 1, "wf-chain-2": 2, str(published.state.id): 2}


@pytest.mark.parametrize(
    "ref", ["", "other", "wf-chain-2", "wf-chain-0", "wf--1", "wf-chain-99999999999", "\x00", "🦊"]
)
async def test_what_is_not_there_is_not_found(engine: Process, ref: str) -> None:
    await engine.workflows.publish(CALLER, chain(1))
    with pytest.raises(NotFound):
        await engine.workflows.find("default", ref)


async def test_another_workspace_does_not_see_it(engine: Process) -> None:
    published = await engine.workflows.publish(CALLER, chain(1))
    for ref in ("chain", str(published.state.id)):
        with pytest.raises(NotFound):
            await engine.workflows.find("other", ref)


async def test_an_executions_id_is_no_workflow_and_the_other_way_round(engine: Process) -> None:
    published = await engine.workflows.publish(CALLER, chain(1))
    execution = await engine.run(chain(1))
    with pytest.raises(NotFound):
        await engine.workflows.find("default", execution.id)
    with pytest.raises(NotFound):
        await engine.history.view("default", str(published.state.id))
    with pytest.raises(NotFound):
        await engine.control.cancel(CALLER, str(published.state.id), None)


async def test_mistakes_are_told_and_nothing_is_stored(engine: Process) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        await engine.workflows.publish(CALLER, {"name": "x y", "steps": {}, "start_step": "a"})
    assert len(caught.value.mistakes) > 1
    assert await engine.store.log.head() == 0


async def test_at_once_published_versions_are_all_kept(ledger_url: str) -> None:
    async with (
        process(ledger_url, working=False) as one,
        process(ledger_url, working=False) as two,
    ):
        for number in range(1, 6):
            await asyncio.gather(
                *(each.workflows.publish(CALLER, chain(number)) for each in (one, two))
            )
        _, newest = await one.workflows.find("default", "chain", trusted=False)
    assert newest == 10


async def test_a_repeated_publish_is_the_first_one(engine: Process) -> None:
    first = await engine.workflows.publish(keyed("k"), chain(1))
    await engine.workflows.publish(CALLER, chain(2))
    again = await engine.workflows.publish(keyed("k"), chain(1))

    assert (first.number, first.replayed) == (1, False)
    assert (again.number, again.replayed) == (1, True)
    with pytest.raises(KeyReused):
        await engine.workflows.publish(keyed("k", "other"), chain(3))


async def test_revise_makes_a_version_of_changed_fields(engine: Process) -> None:
    await engine.workflows.publish(CALLER, chain(1))
    revised = await engine.workflows.revise(CALLER, "chain", {"description": "new"})

    assert revised.number == 2
    assert revised.state.newest().definition["description"] == "new"
    assert revised.state.status == "active"


async def test_revise_with_fields_and_status_is_one_command(engine: Process) -> None:
    await engine.workflows.publish(CALLER, chain(1))
    changes: JsonObject = {"description": "new", "status": "inactive"}
    revised = await engine.workflows.revise(keyed("k"), "chain", changes)
    again = await engine.workflows.revise(keyed("k"), "chain", changes)

    assert (revised.number, revised.state.status, revised.replayed) == (2, "inactive", False)
    assert (again.number, again.state.status, again.replayed) == (2, "inactive", True)


async def test_a_status_alone_makes_no_version(engine: Process) -> None:
    await engine.workflows.publish(CALLER, chain(1))
    revised = await engine.workflows.revise(CALLER, "chain", {"status": "inactive"})
    same = await engine.workflows.revise(CALLER, "chain", {"status": "inactive"})

    assert (revised.number, revised.state.status) == (1, "inactive")
    assert same.state.version == revised.state.version


async def test_revise_refuses_another_name_and_an_unknown_status(engine: Process) -> None:
    await engine.workflows.publish(CALLER, chain(1))
    refused: list[JsonObject] = [{"name": "other"}, {"status": "deleted"}, {"status": "asleep"}]
    for changes in refused:
        with pytest.raises(Invalid):
            await engine.workflows.revise(CALLER, "chain", changes)


async def test_if_match_sees_what_another_process_has_just_changed(ledger_url: str) -> None:
    async with (
        process(ledger_url, working=False) as one,
        process(ledger_url, working=False) as two,
    ):
        version = (await one.workflows.publish(CALLER, chain(1))).state.version
        await two.workflows.find("default", "chain")
        await one.workflows.revise(CALLER, "chain", {"description": "mine"})
        with pytest.raises(PreconditionFailed):
            await two.workflows.revise(Caller(if_match=version), "chain", {"description": "theirs"})


async def test_a_deleted_workflow_is_gone_until_it_is_published_again(engine: Process) -> None:
    await engine.workflows.publish(CALLER, chain(1))
    await engine.workflows.set_status(CALLER, "chain", "deleted")
    with pytest.raises(NotFound):
        await engine.workflows.find("default", "chain")
    with pytest.raises((NotFound, StateConflict)):
        await engine.workflows.set_status(CALLER, "chain", "active")

    again = await engine.workflows.publish(CALLER, chain(2))
    assert (again.number, again.state.status) == (2, "active")


async def test_a_change_in_between_keeps_a_workflow_from_being_retired(engine: Process) -> None:
    await engine.workflows.publish(CALLER, chain(1))
    await engine.workflows.publish(CALLER, chain(2))
    with pytest.raises(PreconditionFailed):
        await engine.workflows.set_status(Caller(if_match=1), "chain", "deleted")
    state = await engine.workflows.set_status(Caller(if_match=2), "chain", "deleted")
    assert state.status == "deleted"
