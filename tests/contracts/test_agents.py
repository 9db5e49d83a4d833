"""Agents on both back ends: the use cases, their sealed credentials, the list of them."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from msgspec import structs
from sqlalchemy import inspect
from uuid_utils.compat import uuid7

from application.agents import Agents
from application.callers import Caller
from application.ports import Append, StoreUnavailable
from domain.agent_policy import AgentPolicy
from domain.agents import AgentRecovery, AgentState, RetryConfig, agent_uuid
from domain.errors import (
    AgentExists,
    Invalid,
    KeyReused,
    NoEncryptionKey,
    NotFound,
    PreconditionFailed,
)
from domain.json_values import JsonObject
from infrastructure.addresses import administration_engine
from infrastructure.agent_secrets import SealedSecrets
from infrastructure.clock import DatabaseClock
from infrastructure.database import Store
from infrastructure.effects.outbound_urls import mistake_of_url
from infrastructure.projections.catalogue import chosen
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.verification import verify
from infrastructure.sealing import BadEncryptionKey, Keys, make_key
from infrastructure.small_tables import open_small_tables
from tests.contracts import projected as told
from tests.contracts.conftest import OpenStore

pytestmark = pytest.mark.anyio

CALLER = Caller(actor="alice")
CANARY = "canary-5c1f0a7e-do-not-keep"
HTTP: JsonObject = {"name": "scorer", "url": "https://scorer.example/a2a"}
BEARER: JsonObject = {**HTTP, "auth_type": "bearer", "auth_config": {"token": CANARY}}
KEY = make_key()

OpenAgents = Callable[..., Awaitable[Agents]]


@pytest.fixture
async def opened(open_ledger: OpenStore) -> AsyncIterator[OpenAgents]:
    """A function which opens the use cases once more, as another process would."""
    async with AsyncExitStack() as stack:

        async def open_it(key: str = KEY, *, over_kafka: bool = False) -> Agents:
            store = await open_ledger(worker=f"w{uuid7()}")
            secrets = SealedSecrets(open_small_tables(store, "t"), store.clock, Keys.parse(key))
            stack.push_async_callback(secrets.aclose)
            return Agents(
                store.log, store.clock, uuid7, secrets, mistake_of_url, http_over_kafka=over_kafka
            )

        yield open_it


@pytest.fixture
async def agents(opened: OpenAgents) -> Agents:
    return await opened()


def keyed(key: str, fingerprint: str = "f") -> Caller:
    return Caller(actor="alice", route="r", idempotency_key=key, fingerprint=fingerprint)


def sealed_rows(url: str) -> list[tuple[str, int, str]]:
    with administration_engine(url).connect() as connection:
        rows = connection.exec_driver_sql("SELECT agent_id, version, sealed FROM agent_secrets")
        return [(str(row[0]), int(row[1]), str(row[2])) for row in rows]


# --------------------------------------------------------------------------------- the use cases


async def test_an_agent_gets_the_defaults_and_is_found_by_name_and_id(agents: Agents) -> None:
    registered = (await agents.register(CALLER, HTTP)).state
    assert registered.id == agent_uuid("default", "scorer")
    assert registered.status == "active"
    assert registered.settings.timeout_ms == 30_000
    assert registered.settings.retry_config.max_retries == 3
    assert registered.settings.circuit_breaker_config.failure_threshold == 5
    assert await agents.find("default", "scorer") == registered
    assert await agents.find("default", str(registered.id)) == registered
    for workspace, ref in (("other", "scorer"), ("other", str(registered.id)), ("default", "x")):
        with pytest.raises(NotFound):
            await agents.find(workspace, ref)


async def test_times_do_not_go_back_when_a_clock_does(agents: Agents, store: Store) -> None:
    first = (await agents.register(CALLER, HTTP)).state

    class Slow(DatabaseClock):
        def now(self) -> datetime:
            return first.created_at - timedelta(hours=1)

    secrets = SealedSecrets(open_small_tables(store, "slow"), store.clock, Keys.parse(KEY))
    behind = Agents(store.log, Slow(0, lambda: 0), uuid7, secrets, mistake_of_url)
    changed = (await behind.change(CALLER, "scorer", {"timeout_ms": 2_000})).state
    assert changed.updated_at == first.created_at
    later = (await agents.change(CALLER, "scorer", {"timeout_ms": 3_000})).state
    assert later.updated_at > changed.updated_at
    await secrets.aclose()


async def test_a_name_is_unique_until_the_agent_is_deleted(
    agents: Agents, opened: OpenAgents
) -> None:
    first = (await agents.register(CALLER, BEARER)).state
    with pytest.raises(AgentExists):
        await (await opened()).register(CALLER, HTTP)
    gone = await agents.delete(CALLER, "scorer")
    assert (gone.status, gone.version) == ("deleted", 2)
    with pytest.raises(NotFound):
        await agents.find("default", "scorer")
    with pytest.raises(NotFound):
        await agents.change(CALLER, str(first.id), {"status": "active"})
    anew = (await agents.register(CALLER, {**HTTP, "description": "the second"})).state
    assert (anew.id, anew.version, anew.settings.auth_type) == (first.id, 3, "none")
    assert await agents.credential(anew) is None


async def test_a_change_touches_what_it_names_only(agents: Agents) -> None:
    before = (await agents.register(CALLER, BEARER)).state
    after = (await agents.change(CALLER, "scorer", {"timeout_ms": 5_000})).state
    assert after.settings == replace_settings(before, timeout_ms=5_000)
    assert await agents.credential(after) == CANARY
    same = (await agents.change(CALLER, "scorer", {"timeout_ms": 5_000})).state
    assert same.version == after.version == 2
    idle = (await agents.change(CALLER, "scorer", {"status": "inactive"})).state
    assert (idle.status, idle.settings) == ("inactive", after.settings)
    with pytest.raises(PreconditionFailed):
        await agents.change(Caller(if_match=1), "scorer", {"timeout_ms": 6_000})
    with pytest.raises(Invalid):
        await agents.change(CALLER, "scorer", {"name": "other"})


def replace_settings(state: AgentState, **changes: object) -> object:
    return structs.replace(state.settings, **changes)


async def test_the_same_key_gives_the_first_answer_again(agents: Agents, ledger_url: str) -> None:
    first = await agents.register(keyed("k"), BEARER)
    await agents.change(CALLER, "scorer", {"timeout_ms": 5_000})
    again = await agents.register(keyed("k"), BEARER)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.state == first.state
    assert len(sealed_rows(ledger_url)) == 1
    with pytest.raises(KeyReused):
        await agents.register(keyed("k", "other"), HTTP)
    changed = await agents.change(keyed("c"), "scorer", {"description": "new"})
    await agents.change(CALLER, "scorer", {"description": "newer"})
    assert (await agents.change(keyed("c"), "scorer", {"description": "new"})).state == (
        changed.state
    )


async def test_every_mistake_is_told_with_its_place_and_nothing_is_stored(
    agents: Agents, ledger_url: str
) -> None:
    described: JsonObject = {
        "name": "a/b",
        "transport": "carrier pigeon",
        "auth_type": "apikey",
        "auth_config": {"key": CANARY, "header_name": "content-type"},
        "timeout_ms": 999,
        "retry_config": {"max_retries": 11, "initial_delay_ms": 5_000, "max_delay_ms": 1_000},
        "circuit_breaker_config": {"failure_threshold": 0},
        "recovery": {"on_failure": "FALLBACK"},
        "colour": "red",
    }
    with pytest.raises(Invalid) as refused:
        await agents.register(CALLER, described)
    assert {mistake.pointer for mistake in refused.value.mistakes} == {
        "/name",
        "/transport",
        "/url",
        "/auth_config/header_name",
        "/timeout_ms",
        "/retry_config/max_retries",
        "/retry_config/initial_delay_ms",
        "/circuit_breaker_config/failure_threshold",
        "/recovery/fallback_agent",
        "/colour",
    }
    assert CANARY not in str(refused.value.mistakes)
    assert sealed_rows(ledger_url) == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://scorer.example",
        "https://user:pass@scorer.example",
        "https://scorer.example/?api_key=0123456789",
        "scorer",
        "https://scorer.example/\u0000",
    ],
)
async def test_a_url_that_cannot_be_called_or_holds_a_credential_is_refused(
    agents: Agents, url: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await agents.register(CALLER, {**HTTP, "url": url})
    assert [mistake.pointer for mistake in refused.value.mistakes] == ["/url"]


@pytest.mark.parametrize(
    "token", [None, 7, "", "short", "***", "a ${secret.B} c", "no\nnewline", "ümlaut-token"]
)
async def test_a_credential_that_no_header_can_carry_is_refused(
    agents: Agents, token: str | int | None
) -> None:
    with pytest.raises(Invalid) as refused:
        await agents.register(CALLER, {**BEARER, "auth_config": {"token": token}})
    assert [mistake.pointer for mistake in refused.value.mistakes] == ["/auth_config/token"]


async def test_only_agents_over_http_need_an_address(agents: Agents) -> None:
    for transport in ("pull", "kafka"):
        described: JsonObject = {"name": transport, "transport": transport}
        assert (await agents.register(CALLER, described)).state.settings.url is None


async def test_the_directory_knows_who_may_be_named_and_how_work_reaches_them(
    agents: Agents, opened: OpenAgents
) -> None:
    await agents.register(CALLER, HTTP)
    await agents.register(CALLER, {"name": "puller", "transport": "pull"})
    await agents.register(CALLER, {**HTTP, "name": "idle"})
    await agents.change(CALLER, "idle", {"status": "inactive"})
    names = ["scorer", "puller", "idle", "nobody"]
    unknown = await agents.unknown("default", names)
    assert set(unknown) == {"idle", "nobody"}
    assert "inactive" in unknown["idle"]
    assert await agents.transports("default", names) == {
        "scorer": "http",
        "puller": "pull",
        "idle": "http",
    }
    bridged = await opened(over_kafka=True)
    assert (await bridged.transports("default", names))["scorer"] == "kafka"
    assert (await bridged.transports("default", names))["puller"] == "pull"
    assert await agents.unknown("other", ["scorer"])


async def test_the_directory_tells_what_records_say_of_failure(
    agents: Agents, opened: OpenAgents
) -> None:
    await agents.register(CALLER, {**HTTP, "retry_config": {"max_retries": 1}})
    to_scorer: JsonObject = {"on_failure": "FALLBACK", "fallback_agent": "scorer"}
    await agents.register(CALLER, {"name": "puller", "transport": "pull", "recovery": to_scorer})
    once = AgentPolicy(RetryConfig(max_retries=1))
    back = AgentPolicy(RetryConfig(), AgentRecovery(on_failure="FALLBACK", fallback_agent="scorer"))
    for directory in (agents, await opened()):
        found = await directory.policies("default", ["scorer", "puller", "nobody"])
        assert found == {"scorer": once, "puller": back}
        assert await directory.policies("other", ["scorer"]) == {}
    await agents.change(CALLER, "puller", {"retry_config": {"max_retries": 0}})
    (changed,) = (await agents.policies("default", ["puller"])).values()
    assert changed.recovery is not None
    assert (changed.retry_config.max_retries, changed.recovery.max_retries) == (0, 0)
    await agents.delete(CALLER, "scorer")
    assert await agents.policies("default", ["scorer"]) == {}


async def test_an_agent_may_be_called_like_an_id(agents: Agents) -> None:
    name = str(UUID(int=7))
    registered = (await agents.register(CALLER, {**HTTP, "name": name})).state
    assert await agents.state("default", name) == registered
    assert await agents.find("default", name) == registered


# ----------------------------------------------------------------------------------- credentials


async def test_a_credential_is_found_nowhere(
    agents: Agents, open_ledger: OpenStore, ledger_url: str
) -> None:
    """In plain or as base64: all tables, the log included, as bytes."""
    state = (await agents.register(CALLER, BEARER)).state
    await agents.change(CALLER, "scorer", {"auth_config": {"token": CANARY + "2"}})
    await agents.change(CALLER, "scorer", {"description": "later"})
    assert await agents.credential(state) == CANARY + "2"
    store = await open_ledger(worker="projector")
    tables = told.projection_store(store, ledger_url)
    told.catch_up(tables)
    tables.close()
    kept = everything_stored(ledger_url)
    assert "scorer" in kept
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + CANARY.encode()).decode()[4:-4]
        assert encoded not in kept
    assert CANARY not in kept
    assert CANARY not in repr(state)


def everything_stored(url: str) -> str:
    parts = []
    with administration_engine(url).connect() as connection:
        for table in inspect(connection).get_table_names():
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}"):
                parts += [
                    each.decode("utf-8", "replace")
                    if isinstance(each, bytes)
                    else json.dumps(each, default=str)
                    for each in row
                ]
    return "\n".join(parts)


async def test_another_process_opens_what_one_sealed(agents: Agents, opened: OpenAgents) -> None:
    await agents.register(CALLER, BEARER)
    other = await opened()
    assert await other.credential(await other.find("default", "scorer")) == CANARY


async def test_a_literal_credential_needs_a_key_and_a_reference_does_not(
    opened: OpenAgents, ledger_url: str
) -> None:
    keyless = await opened(key="")
    with pytest.raises(NoEncryptionKey, match="flowledger make-key"):
        await keyless.register(CALLER, BEARER)
    with pytest.raises(NotFound):
        await keyless.find("default", "scorer")
    described: JsonObject = {**BEARER, "auth_config": {"token": "${secret.SCORER}"}}
    state = (await keyless.register(CALLER, described)).state
    assert await keyless.credential(state) == "${secret.SCORER}"
    assert sealed_rows(ledger_url) == []


async def test_a_credential_stays_until_another_one_comes(agents: Agents, ledger_url: str) -> None:
    registered = (await agents.register(CALLER, BEARER)).state
    kept = (await agents.change(CALLER, "scorer", {"auth_config": {"token": "***"}})).state
    assert kept.version == 1
    changed = await agents.change(CALLER, "scorer", {"auth_config": {"token": "another-token"}})
    assert await agents.credential(changed.state) == "another-token"
    assert await agents.credential(registered) == "another-token"  # the old one is destroyed
    assert [version for _, version, _ in sealed_rows(ledger_url)] == [2]
    with pytest.raises(Invalid):  # a token is no key
        await agents.change(CALLER, "scorer", {"auth_type": "apikey"})
    none = (await agents.change(CALLER, "scorer", {"auth_type": "none"})).state
    assert await agents.credential(none) is None
    assert sealed_rows(ledger_url) == []


async def test_deleting_an_agent_destroys_its_credential(agents: Agents, ledger_url: str) -> None:
    state = (await agents.register(CALLER, BEARER)).state
    await agents.delete(CALLER, "scorer")
    assert sealed_rows(ledger_url) == []
    assert await agents.credential(state) is None


async def test_an_agent_is_never_registered_without_the_credential_it_claims(
    open_ledger: OpenStore,
) -> None:
    """The secret comes first: where it cannot be stored there is no event either."""
    store = await open_ledger(worker="w")

    class Lost(SealedSecrets):
        async def put(self, agent_id: UUID, version: int, secret_id: str, credential: str) -> None:
            raise StoreUnavailable("lost")

    secrets = Lost(open_small_tables(store, "t"), store.clock, Keys.parse(KEY))
    failing = Agents(store.log, store.clock, uuid7, secrets, mistake_of_url)
    with pytest.raises(Exception, match="lost"):
        await failing.register(CALLER, BEARER)
    assert await store.log.read_stream(agent_uuid("default", "scorer")) == []
    await secrets.aclose()


async def test_who_loses_a_race_does_not_take_the_winner_s_credential(
    open_ledger: OpenStore, opened: OpenAgents, ledger_url: str
) -> None:
    """Another process registers the name between the decision of one and its append."""
    store = await open_ledger(worker="w")
    other = await opened()
    log = store.log

    class Overtaken:
        """The log, in which somebody is faster once."""

        async def append(self, append: Append) -> object:
            await other.register(CALLER, {**BEARER, "auth_config": {"token": "the-winner-s"}})
            return await log.append(append)

        def __getattr__(self, name: str) -> object:
            return getattr(log, name)

    secrets = SealedSecrets(open_small_tables(store, "t"), store.clock, Keys.parse(KEY))
    slow = Agents(Overtaken(), store.clock, uuid7, secrets, mistake_of_url)  # type: ignore[arg-type]  # the rest of the log is the real one's
    with pytest.raises(AgentExists):
        await slow.register(CALLER, BEARER)
    winner = await other.find("default", "scorer")
    assert await other.credential(winner) == "the-winner-s"
    assert len(sealed_rows(ledger_url)) == 1
    await secrets.aclose()


# ------------------------------------------------------------------------------------------ keys


async def test_a_new_key_in_front_opens_everything_and_resealing_lets_the_old_one_go(
    agents: Agents, opened: OpenAgents, open_ledger: OpenStore
) -> None:
    await agents.register(CALLER, BEARER)
    new = make_key()
    both = await opened(key=f"{new},{KEY}")
    state = await both.find("default", "scorer")
    assert await both.credential(state) == CANARY
    only_new = await opened(key=new)
    with pytest.raises(NoEncryptionKey, match="sealed with a key"):
        await only_new.credential(state)
    store = await open_ledger(worker="rotation")
    secrets = SealedSecrets(open_small_tables(store, "t"), store.clock, Keys.parse(f"{new},{KEY}"))
    assert await secrets.reseal() == (1, 1)
    assert await secrets.reseal() == (1, 0)
    await secrets.aclose()
    assert await (await opened(key=new)).credential(state) == CANARY


async def test_a_row_in_the_place_of_another_does_not_open(
    agents: Agents, opened: OpenAgents, ledger_url: str
) -> None:
    await agents.register(CALLER, BEARER)
    other = {**BEARER, "name": "thief", "auth_config": {"token": "worthless-token"}}
    thief = (await agents.register(CALLER, other)).state
    statement = (
        "UPDATE agent_secrets SET sealed = (SELECT sealed FROM agent_secrets WHERE agent_id <> "
        f"'{thief.id}') WHERE agent_id = '{thief.id}'"
    )
    with administration_engine(ledger_url).begin() as connection:
        connection.exec_driver_sql(statement)
    with pytest.raises(NoEncryptionKey):
        await (await opened()).credential(thief)


def test_a_bad_key_is_refused_without_being_repeated() -> None:
    with pytest.raises(BadEncryptionKey) as refused:
        Keys.parse(f"{KEY}, hunter2hunter2")
    assert "key 2" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert repr(Keys.parse(KEY)) == "Keys(1)"


# ------------------------------------------------------------------------------------- the list


async def test_the_list_is_what_the_events_say(
    agents: Agents, store: Store, ledger_url: str
) -> None:
    described: JsonObject = {**BEARER, "recovery": {"on_failure": "FAIL"}}
    await agents.register(CALLER, described)
    await agents.register(CALLER, {"name": "puller", "transport": "pull"})
    await agents.register(CALLER, {**HTTP, "name": "gone"})
    await agents.delete(CALLER, "gone")
    changed = (await agents.change(Caller(actor="bob"), "puller", {"status": "inactive"})).state
    tables = told.projection_store(store, ledger_url)
    told.catch_up(tables, batch=2)
    reads = ProjectionReads(store.engine, tables, store.clock.now, threads=store.query_threads)

    async def listed(status: str | None = None, name: str | None = None) -> list[str]:
        page = await reads.agents("default", status=status, name=name, page=1, page_size=10)
        assert page.total == len(page.items)
        return [each.name for each in page.items]

    assert await listed() == ["puller", "scorer"]
    assert await listed(status="deleted") == ["gone"]
    assert await listed(name="scorer") == ["scorer"]
    page = await reads.agents("default", status="inactive", name=None, page=1, page_size=10)
    (row,) = page.items
    assert (row.version, row.updated_by, row.updated_at) == (2, "bob", changed.updated_at)
    (found,) = (
        await reads.agents("default", status=None, name="scorer", page=1, page_size=10)
    ).items
    assert found.auth_config == {"token": "***"}
    assert found.recovery is not None
    assert found.recovery.on_failure == "FAIL"
    verdicts = verify(tables, chosen("agents"), lambda done, of: None)
    assert [(each.name, each.difference) for each in verdicts] == [("agents", None)]
    tables.close()
