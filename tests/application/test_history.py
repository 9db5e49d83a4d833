"""What is told about one execution: now, then, and as it happens."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import timedelta
from uuid import UUID

import pytest

from application import history
from application.views import summarise
from domain.errors import Invalid, LogDamaged, NotFound, NotReady
from domain.events import Recorded
from domain.execution import fold
from domain.json_values import JsonObject
from tests.engine import CALLER, PATIENCE_SECONDS, Process, chain, definition, process, step, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(ledger_url: str) -> AsyncIterator[Process]:
    async with process(ledger_url) as opened:
        yield opened


async def test_every_past_version_is_the_fold_of_its_events(engine: Process) -> None:
    execution = await engine.run(chain(3))
    await engine.ended(execution)
    recorded = await engine.events(execution)

    for version, each in enumerate(recorded, start=1):
        state = fold(one.event for one in recorded[:version])
        assert state is not None
        then = await engine.history.view("default", execution.id, as_of=version)
        assert then == summarise(state, each.position)


async def test_a_past_time_shows_the_last_event_before_it(engine: Process) -> None:
    execution = await engine.run(chain(3))
    await engine.ended(execution)
    recorded = await engine.events(execution)
    last_at = {each.event.meta.at: each.event.version for each in recorded}

    for at, version in last_at.items():
        assert (await engine.history.view("default", execution.id, as_of=at)).version == version
    before = recorded[0].event.meta.at - timedelta(microseconds=1)
    with pytest.raises(NotFound):
        await engine.history.view("default", execution.id, as_of=before)


@pytest.mark.parametrize("version", [0, -1, 1_000, 2**70])
async def test_a_version_that_never_was_is_refused(engine: Process, version: int) -> None:
    execution = await engine.run(chain(1))
    await engine.ended(execution)
    with pytest.raises(Invalid):
        await engine.history.view("default", execution.id, as_of=version)


async def test_nothing_is_told_over_a_gap_in_the_log(sqlite_ledger_url: str) -> None:
    async with process(sqlite_ledger_url) as engine:
        execution = await engine.run(chain(3))
        await engine.ended(execution)
        with closing(sqlite3.connect(sqlite_ledger_url.removeprefix("sqlite:///"))) as other:
            other.execute("DROP TRIGGER ledger_events_no_delete")
            other.execute("DELETE FROM ledger_events WHERE originator_version = 4")
            other.commit()

        with pytest.raises(LogDamaged, match="version 5 follows version 3"):
            await engine.history.events("default", execution.id)  # the state is remembered
        with pytest.raises(LogDamaged):
            await engine.history.events("default", execution.id, after_version=3)
        assert await engine.history.events("default", execution.id, after_version=4)
        async with process(sqlite_ledger_url) as another:
            with pytest.raises(LogDamaged, match=execution.id):
                await another.history.view("default", execution.id)
            with pytest.raises(LogDamaged):
                await another.requests.fork(CALLER, execution.id, "s1", None)


async def test_times_never_go_back_within_an_execution(engine: Process) -> None:
    execution = await engine.run(chain(20))
    await engine.ended(execution)
    times = [each.event.meta.at for each in await engine.events(execution)]
    assert times == sorted(times)


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_a_follower_sees_every_event_once_in_order(engine: Process, after: int) -> None:
    executions = [await engine.run(chain(20)) for _ in range(20)]

    async def follow(execution_id: str) -> list[int]:
        following = engine.history.follow(UUID(execution_id), after)
        return [each.event.version async for each in following]

    seen = await asyncio.gather(*(follow(each.id) for each in executions))
    for execution, versions in zip(executions, seen, strict=True):
        last = (await engine.history.view("default", execution.id)).version
        assert versions == list(range(after + 1, last + 1))


async def test_who_waits_for_the_end_sees_what_another_process_opened_again(
    ledger_url: str,
) -> None:
    async with (
        process(ledger_url, working=False) as here,
        process(ledger_url, working=False) as other,
    ):
        execution = await here.run(chain(1))
        await here.control.cancel(CALLER, execution.id, None)
        retried = (await other.control.retry(CALLER, execution.id, None, None)).view
        assert (retried.status, retried.attempt) == ("PENDING", 2)
        seen = await here.history.wait_ended("default", execution.id, 0.0)
        assert (seen.status, seen.version) == ("PENDING", retried.version)


async def test_a_follower_in_another_process_sees_the_same(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as api, process(ledger_url):
        executions = [await api.run(chain(10)) for _ in range(10)]

        async def follow(execution_id: str) -> list[int]:
            following = api.history.follow(UUID(execution_id), 0)
            return [each.event.version async for each in following]

        seen = await asyncio.gather(*(follow(each.id) for each in executions))
    assert seen == [list(range(1, len(seen[0]) + 1))] * 10


async def test_a_follower_that_comes_after_the_end_ends_at_once(engine: Process) -> None:
    execution = await engine.run(chain(1))
    view = await engine.ended(execution)
    rest = [e async for e in engine.history.follow(UUID(execution.id), view.version)]
    assert rest == []


async def test_followers_of_what_does_not_move_leave_the_log_alone(
    engine: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "POLL_SECONDS", 0.05)
    execution = await engine.run(definition(a=step("hold")))
    await until(lambda: engine.deeds.done)
    looks: list[int] = []
    read = engine.ledger.read

    async def counted(execution_id: UUID, after: int, limit: int) -> Sequence[Recorded]:
        looks.append(after)
        return await read(execution_id, after, limit)

    monkeypatch.setattr(engine.ledger, "read", counted)
    following = engine.history.follow(UUID(execution.id), 0)
    seen = [(await anext(following)).event.version for _ in range(3)]
    rest = asyncio.create_task(_versions(following))
    await asyncio.sleep(0.5)
    assert len(looks) <= 2
    engine.deeds.open("")
    last = (await engine.ended(execution)).version
    assert seen + await rest == list(range(1, last + 1))


async def test_a_crowd_of_followers_takes_turns_to_look(
    engine: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE", 4)
    execution = await engine.run(chain(3))
    last = (await engine.ended(execution)).version
    reading, most = 0, 0
    read = engine.ledger.read

    async def counted(execution_id: UUID, after: int, limit: int) -> Sequence[Recorded]:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        try:
            return await read(execution_id, after, limit)
        finally:
            reading -= 1

    async def follow() -> list[int]:
        view = await engine.history.to_follow("default", execution.id)
        return await _versions(engine.history.follow(UUID(view.id), 0))

    monkeypatch.setattr(engine.ledger, "read", counted)
    seen = await asyncio.gather(*(follow() for _ in range(4 * history.FOLLOWERS_READING_MAX)))
    assert seen == [list(range(1, last + 1))] * len(seen)
    assert most == history.FOLLOWERS_READING_MAX


async def test_a_follower_whose_look_failed_looks_again_soon(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "IDLE_SECONDS", 3_600.0)
    failures = [NotReady("away"), NotReady("away")]
    async with process(ledger_url, working=False) as api, process(ledger_url) as engine:
        execution = await api.run(definition(a=step("hold")))
        await until(lambda: engine.deeds.done)
        following = api.history.follow(UUID(execution.id), 0)
        seen = [(await anext(following)).event.version for _ in range(3)]
        read = api.ledger.read

        async def failing(execution_id: UUID, after: int, limit: int) -> Sequence[Recorded]:
            if failures:
                raise failures.pop()
            return await read(execution_id, after, limit)

        monkeypatch.setattr(api.ledger, "read", failing)
        engine.deeds.open("")
        async with asyncio.timeout(PATIENCE_SECONDS):
            seen += await _versions(following)
        assert seen == list(range(1, (await engine.ended(execution)).version + 1))
    assert failures == []


async def _versions(following: AsyncIterator[Recorded]) -> list[int]:
    return [each.event.version async for each in following]


async def test_waiting_gives_up_in_time_and_leaves_nothing_behind(engine: Process) -> None:
    execution = await engine.run(definition(a=step("hold")))
    view = await engine.history.wait_ended("default", execution.id, 0.1)
    assert view.status in ("PENDING", "RUNNING")
    engine.deeds.open("")
    await engine.ended(execution)


async def test_many_wait_for_the_same_end(engine: Process) -> None:
    execution = await engine.run(definition(a=step("hold")))
    waiting = [asyncio.create_task(engine.ended(execution)) for _ in range(50)]
    await until(lambda: engine.deeds.done)
    engine.deeds.open("")
    views = await asyncio.gather(*waiting)
    assert {view.status for view in views} == {"COMPLETED"}


async def test_steps_show_every_try_of_every_attempt(engine: Process) -> None:
    retry: JsonObject = {"attempts": 1, "base_delay_ms": 0}
    flow = definition(a=step(), b=step("fail", config={"times": 2}, retry=retry))
    execution = await engine.run(flow)
    await engine.ended(execution)
    engine.deeds.fails = False
    await engine.control.retry(CALLER, execution.id, None, None)
    await engine.ended(execution)

    steps = await engine.history.steps("default", execution.id)
    assert [(each.path, each.attempt, each.try_no, each.status) for each in steps] == [
        ("a", 1, 1, "COMPLETED"),
        ("b", 1, 1, "FAILED"),
        ("b", 1, 2, "FAILED"),
        ("b", 2, 1, "COMPLETED"),
    ]


async def test_events_come_in_pages(engine: Process) -> None:
    execution = await engine.run(chain(10))
    view = await engine.ended(execution)
    versions: list[int] = []
    while page := await engine.history.events(
        "default", execution.id, after_version=versions[-1] if versions else 0, limit=7
    ):
        versions += [each.event.version for each in page]
    assert versions == list(range(1, view.version + 1))
