"""What messages ask for and send back: taken once, recorded, or refused with the cause."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from msgspec import structs

from application.incoming import Incoming
from application.ledger import Entry, execution_uuid
from application.messages import AgentResult, CancellationRequest, ExecutionRequest, Poison
from application.outside_runs import OutsideDefinition, OutsideRun
from application.pending_starts import WAITING_MAX, PendingStarts
from application.reads import ExecutionQuery, Page
from application.relay_facts import starts_by_request
from application.requests import ExecuteOptions, Requests
from application.views import ExecutionView, summarise
from domain import events as ev
from domain.json_values import JsonObject
from infrastructure.input_schema import JsonSchemas
from tests.engine import CALLER, Process, asked, definition, process, step, until

pytestmark = pytest.mark.anyio

AGENTS = {"topic": "kafka"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Rows:
    """Rows of other programs, in memory; as the tables show executions, asked of the log."""

    def __init__(self, engine: Process) -> None:
        self.runs: dict[str, OutsideRun] = {}
        self.definitions: dict[str, OutsideDefinition] = {}
        self.names: dict[str, str] = {}
        self.executions_known: list[UUID] = []
        self.queries: list[ExecutionQuery] = []
        self._engine = engine

    async def outside_run(self, workspace_id: str, run_id: str) -> OutsideRun | None:
        return self.runs.get(run_id)

    async def outside_definition(
        self, workspace_id: str, references: Sequence[str]
    ) -> OutsideDefinition | None:
        found = [self.definitions[each] for each in references if each in self.definitions]
        return found[0] if found else None

    async def name_execution(self, workspace_id: str, run_id: str, execution_run_id: str) -> None:
        self.names[run_id] = execution_run_id

    async def executions(self, query: ExecutionQuery) -> Page[ExecutionView]:
        self.queries.append(query)
        entries = [await self._engine.ledger.load(each) for each in self.executions_known]
        views = [summarise(each.state, each.position) for each in entries if each is not None]
        return Page(views, len(views), 1, 100, 1, None)


class Receiving:
    """A process with its incoming messages."""

    def __init__(self, engine: Process) -> None:
        self.engine = engine
        self.rows = Rows(engine)
        self.reports: list[str] = []
        self.starts = PendingStarts(
            engine.store.queue,
            engine.worker,
            self.rows,
            engine.store.clock,
            lambda event, facts: self.reports.append(event),
        )
        self.incoming = Incoming(
            engine.ledger,
            engine.requests,
            engine.control,
            engine.results,
            self.rows,
            self.starts,
        )

    async def execute(self, run_id: str, plan: dict[str, Any] | None, **more: Any) -> None:
        given = {"input": {"x": 1}, "at": NOON, **more}
        await self.incoming.execute(ExecutionRequest(run_id=run_id, plan=plan, **given))

    async def ended(self, run_id: str) -> ExecutionView:
        return await self.engine.ended(run_id)

    def over_kafka(self, away: str | None = None) -> Requests:
        """The requests of a process that starts nothing itself."""
        engine = self.engine
        return Requests(
            engine.ledger, engine.workflows, engine.worker, JsonSchemas(), over_kafka=lambda: away
        )


@asynccontextmanager
async def receiving(url: str, **options: Any) -> AsyncIterator[Receiving]:
    async with process(url, agents=AGENTS, **options) as engine:
        yield Receiving(engine)


class TestARequest:
    async def test_of_an_unknown_run_is_recorded_and_runs_here(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            plan = {**definition(a=step(config={"n": "$.workflow_input.x"})), "version": "1"}
            for _ in range(3):
                await here.execute("run-7", {**plan, "workflow_id": "wf-demo-1"})
            ended = await here.ended("run-7")
            assert (ended.status, ended.output) == ("COMPLETED", {"ok": True, "n": 1})
            assert (ended.workflow_id, ended.triggered_by) == ("wf-demo-1", "kafka")
            assert here.rows.names == {"run-7": ended.run_id}
            assert len(here.engine.deeds.done) == 1
            await here.execute("run-7", plan)
            assert len(here.engine.deeds.done) == 1

    async def test_tripled_at_once_is_one_execution(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            plan = definition(a=step())
            same = [here.execute(f"run-{n}", plan) for n in (1, 2, 3) for _ in range(3)]
            await asyncio.gather(*same)
            for n in (1, 2, 3):
                assert (await here.ended(f"run-{n}")).status == "COMPLETED"
            assert len(here.engine.deeds.done) == 3

    async def test_of_which_a_copy_is_faster_by_a_moment_is_no_poison(
        self, ledger_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with receiving(ledger_url) as here:
            plan = definition(a=step())
            load = here.engine.ledger.load

            async def slow(execution_id: UUID) -> Entry | None:
                found = await load(execution_id)
                monkeypatch.setattr(here.engine.ledger, "load", load)
                await here.execute("run-1", plan)  # the copy, between two looks at the log
                return found

            monkeypatch.setattr(here.engine.ledger, "load", slow)
            await here.execute("run-1", plan)
            assert (await here.ended("run-1")).status == "COMPLETED"
            assert len(here.engine.deeds.done) == 1

    async def test_names_a_published_workflow(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            await here.engine.workflows.publish(CALLER, {**definition(a=step()), "name": "known"})
            await here.execute("run-7", None, workflow_id="known")
            assert (await here.ended("run-7")).workflow_name == "known"
            with pytest.raises(Poison, match="no workflow 'unknown'"):
                await here.execute("run-8", None, workflow_id="unknown")

    async def test_takes_from_its_row_what_it_lacks(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            plan = definition(a=step(config={"n": "$.workflow_input.x"}))
            here.rows.runs["run-7"] = OutsideRun(
                "run-7", "wf-theirs-1", "theirs", "d-1", "PENDING", {"x": 5}, "ann", NOON
            )
            here.rows.definitions["d-1"] = OutsideDefinition("d-1", "theirs", 1, "active", plan)
            await here.execute("run-7", None, input=None)
            ended = await here.ended("run-7")
            assert (ended.output, ended.triggered_by) == ({"ok": True, "n": 5}, "ann")

    @pytest.mark.parametrize(
        "wrong",
        [{"n": 2**60}, {"n": "x" * 300_000}, {"n": json.loads("[" * 100 + "]" * 100)}],
        ids=["digits", "size", "depth"],
    )
    async def test_whose_row_holds_what_cannot_be_kept_is_poison(
        self, ledger_url: str, wrong: JsonObject
    ) -> None:
        """SQL takes what no event can hold."""
        async with receiving(ledger_url) as here:
            plan = definition(a=step())
            here.rows.runs["run-7"] = OutsideRun(
                "run-7", None, "theirs", None, "PENDING", wrong, "ann", NOON
            )
            here.rows.runs["run-8"] = OutsideRun(
                "run-8", None, "theirs", "d-1", "PENDING", {}, "ann", NOON
            )
            here.rows.definitions["d-1"] = OutsideDefinition(
                "d-1", "theirs", 1, "active", {**plan, **wrong}
            )
            with pytest.raises(Poison, match=r"^/input_data/n.* of its row cannot be taken: "):
                await here.execute("run-7", plan, input=None)
            with pytest.raises(Poison, match=r"^/workflow_data/n.* of its row cannot be taken: "):
                await here.execute("run-8", None)
            assert await here.engine.ledger.load(execution_uuid("default", "run-7")) is None

    async def test_that_can_never_run_is_poison_and_leaves_nothing(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            with pytest.raises(Poison, match="/workflow_plan: it is missing"):
                await here.execute("run-7", None)
            with pytest.raises(Poison, match=r"/steps/a/agent_name: .*nobody"):
                await here.execute("run-7", definition(a=asked("nobody")))
            with pytest.raises(Poison, match="A run_id is text of"):
                await here.execute("r" * 201, definition(a=step()))
            state = (await here.engine.workflows.publish(CALLER, definition(a=step()))).state
            with pytest.raises(Poison, match="is the id of something else"):
                await here.execute(f"run-{state.id}", definition(a=step()))
            assert await here.engine.ledger.load(execution_uuid("default", "run-7")) is None

    async def test_of_another_workspace_is_refused(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            other = replace(CALLER, workspace_id="elsewhere")
            view = await here.engine.run(definition(a=step()), caller=other)
            with pytest.raises(Poison, match="another workspace"):
                await here.execute(view.run_id, definition(a=step()))


class TestWhatStartsByItsRequest:
    async def test_waits_for_it(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            plan = definition(a=step())
            asked_for = await here.over_kafka().execute_inline(CALLER, plan, ExecuteOptions())
            row = await here.engine.store.queue.row(UUID(asked_for.view.id))
            assert row is not None
            assert (row.leased, row.ready_at) == (False, None)
            assert asked_for.view.error_message is None
            (recorded,) = await here.engine.events(asked_for.view)
            assert isinstance(recorded.event.data, ev.Requested)
            assert recorded.event.data.starts_by == "kafka"
            await here.execute(asked_for.view.run_id, {})
            assert (await here.ended(asked_for.view.run_id)).status == "COMPLETED"

    async def test_says_why_it_was_not_sent_until_it_starts(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            away = here.over_kafka("Kafka is away")
            view = (await away.execute_inline(CALLER, definition(a=step()), ExecuteOptions())).view
            assert (view.status, view.error_message) == (
                "PENDING",
                "Kafka is away",
            )
            await here.execute(view.run_id, {})
            ended = await here.ended(view.run_id)
            assert (ended.status, ended.error_message) == ("COMPLETED", None)

    async def test_goes_to_others_when_there_is_no_room(self, ledger_url: str) -> None:
        async with receiving(ledger_url, slots=1) as here:
            held = await here.engine.run(definition(a=step("hold", config={"gate": "g"})))
            await here.engine.deeds.count(1)
            plan = definition(a=step())
            view = (await here.over_kafka().execute_inline(CALLER, plan, ExecuteOptions())).view
            async with process(ledger_url, agents=AGENTS) as other:
                await here.execute(view.run_id, {})
                assert (await other.ended(view)).status == "COMPLETED"
            here.engine.deeds.open("g")
            await here.engine.ended(held)

    async def test_is_looked_for_when_its_request_is_lost(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            plan = definition(a=step())
            view = (await here.over_kafka().execute_inline(CALLER, plan, ExecuteOptions())).view
            here.rows.executions_known.append(UUID(view.id))
            here.starts.begin()
            try:
                assert (await here.ended(view.run_id)).status == "COMPLETED"
            finally:
                await here.starts.end()
            (query,) = here.rows.queries
            assert query.statuses == ("PENDING",)
            assert query.created_before is not None
            assert here.engine.store.clock.now() - query.created_before >= WAITING_MAX
            await until(lambda: here.reports)
            assert here.reports == ["pending_executions_made_ready"]

    async def test_with_a_later_start_is_left_to_the_queue(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            options = ExecuteOptions(delay_seconds=3600)
            requests = here.over_kafka("away")
            view = (await requests.execute_inline(CALLER, definition(a=step()), options)).view
            await here.execute(view.run_id, {})
            row = await here.engine.store.queue.row(UUID(view.id))
            assert row is not None
            assert (row.leased, row.ready_at) == (False, view.start_at)
            assert view.error_message is None

    async def test_is_done_again_by_the_queue(self, ledger_url: str) -> None:
        """A fork and a retry begin, wherever Kafka is; no request is sent for them."""
        async with receiving(ledger_url) as here:
            away = here.over_kafka("away")
            plan = definition(a=step("fail", config={"permanent": True}))
            view = (await away.execute_inline(CALLER, plan, ExecuteOptions())).view
            await here.execute(view.run_id, {})
            assert (await here.ended(view.run_id)).status == "FAILED"
            here.engine.deeds.fails = False
            forked = (await away.fork(CALLER, view.id, "a", None)).view
            assert (await here.ended(forked.id)).status == "COMPLETED"
            await here.engine.control.retry(CALLER, view.id, None, None)
            assert (await here.ended(view.id)).status == "COMPLETED"
            recorded = await here.engine.events(forked)
            assert not any(starts_by_request(each.event) for each in recorded)


class TestACancellation:
    CANCEL = CancellationRequest(run_id="run-7", cancelled_by="ann", reason="no need", at=NOON)

    async def test_stops_a_run_once(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            await here.execute("run-7", definition(a=step("hold", config={"gate": "g"})))
            await here.engine.deeds.count(1)
            assert await here.incoming.cancel(self.CANCEL, "m-1")
            ended = await here.ended("run-7")
            assert (ended.status, ended.cancelled_by) == ("CANCELLED", "ann")
            here.engine.deeds.open("g")
            await here.engine.control.retry(CALLER, "run-7", None, None)
            assert await here.incoming.cancel(self.CANCEL, "m-1")
            assert (await here.ended("run-7")).status == "COMPLETED"

    async def test_comes_too_late(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            await here.execute("run-7", definition(a=step()))
            await here.ended("run-7")
            assert not await here.incoming.cancel(self.CANCEL, "m-1")

    async def test_that_overtakes_its_request_stops_the_run(self, ledger_url: str) -> None:
        """They come from two topics, between which there is no order."""
        async with receiving(ledger_url) as here:
            cancelling = asyncio.create_task(here.incoming.cancel(self.CANCEL, "m-1"))
            await asyncio.sleep(0.15)
            await here.execute("run-7", definition(a=step("hold", config={"gate": "g"})))
            assert await cancelling
            ended = await here.ended("run-7")
            assert (ended.status, ended.cancelled_by) == ("CANCELLED", "ann")

    async def test_of_an_unknown_run_is_poison(
        self, ledger_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("application.incoming.ARRIVES_SECONDS", (0.01, 0.01))
        async with receiving(ledger_url) as here:
            with pytest.raises(Poison, match="There is no execution 'run-7'"):
                await here.incoming.cancel(self.CANCEL, "m-1")


class TestAResult:
    async def test_ends_its_step_once(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            result = await dispatched(here)
            for _ in range(3):
                await here.incoming.record(result)
            assert (await here.ended("run-7")).output == {"n": 1}
            await here.incoming.record(structs.replace(result, output={"n": 2}))
            topics = await here.engine.topics(await here.ended("run-7"))
            assert topics.count("step_completed") == 1
            assert topics.count("late_result_ignored") == 1

    async def test_that_says_why_it_failed_fails_its_step(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            result = await dispatched(here)
            await here.incoming.record(
                structs.replace(result, succeeded=False, error_message="HTTP 404: not here")
            )
            ended = await here.ended("run-7")
            assert ended.status == "FAILED"
            (failed,) = [
                fact for fact in await here.engine.facts(ended) if isinstance(fact, ev.StepFailed)
            ]
            assert (failed.code, failed.error_class) == ("agent_failed", "permanent")
            assert failed.message == "HTTP 404: not here"

    @pytest.mark.parametrize("output", [{"text": "x" * 3_000_000}, {"id": 2**60}, {"a": math.nan}])
    async def test_that_cannot_be_kept_fails_its_step(
        self, ledger_url: str, output: JsonObject
    ) -> None:
        async with receiving(ledger_url) as here:
            result = await dispatched(here)
            await here.incoming.record(structs.replace(result, output=output))
            ended = await here.ended("run-7")
            (failed,) = [
                fact for fact in await here.engine.facts(ended) if isinstance(fact, ev.StepFailed)
            ]
            assert (failed.code, failed.retryable) == ("output_not_storable", False)

    async def test_of_another_run_or_task_is_poison(self, ledger_url: str) -> None:
        async with receiving(ledger_url) as here:
            result = await dispatched(here)
            for wrong, told in (
                ({"run_id": "run-8"}, "There is no execution 'run-8'"),
                ({"correlation_id": "c"}, "no task with the correlation id 'c'"),
                ({"task_id": "t"}, "not to 't'"),
            ):
                with pytest.raises(Poison, match=told):
                    await here.incoming.record(structs.replace(result, **wrong))
            await here.incoming.record(result)
            assert (await here.ended("run-7")).status == "COMPLETED"


async def dispatched(here: Receiving) -> AgentResult:
    """The result of the one task of run-7."""
    await here.execute("run-7", definition(a=asked("topic")))
    view = await here.engine.history.view("default", "run-7")
    view = await here.engine.until(
        view, lambda seen: [each.kind for each in seen.waiting_on] == ["agent"]
    )
    (task,) = [
        fact for fact in await here.engine.facts(view) if isinstance(fact, ev.TaskDispatched)
    ]
    return AgentResult(
        run_id="run-7",
        task_id=task.task_id,
        succeeded=True,
        output={"n": 1},
        correlation_id=task.correlation_id,
        error_message=None,
        at=None,
    )
