"""Executions in every state a diagram or an explanation has to show, made by the real decisions."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec import structs

from domain.decisions import Outcome, Request, answer, cancel, request, settle
from domain.definition import Definition, compile_definition
from domain.definition_reader import DefinitionReader
from domain.draft import Draft
from domain.events import Meta
from domain.execution import ExecutionState
from domain.interventions import settle_step
from domain.json_values import Json, JsonObject
from domain.planner import advance

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
ID = UUID("019c0000-0000-7000-8000-000000000001")


def defined(name: str, steps: Sequence[JsonObject], **fields: Json) -> Definition:
    """A definition from steps in order, the first one first. Not validated: any name may pass."""
    raw: JsonObject = {"name": name, "start_step": steps[0]["id"], **fields}
    normalised = DefinitionReader().read(
        {**raw, "steps": {str(each["id"]): each for each in steps}}
    )
    assert normalised is not None
    return compile_definition(normalised)


def action(step_id: str, following: str | None, **fields: Json) -> JsonObject:
    step: JsonObject = {
        "id": step_id,
        "type": "action",
        "action": "call_api",
        "next_step": following,
    }
    return {**step, "config": {"url": "https://example.org"}, **fields}


class Run:
    """An execution driven by hand; time moves by `after` seconds before each outcome."""

    def __init__(self, definition: Definition, given: JsonObject | None = None) -> None:
        wanted = Request(
            workflow_id=f"wf-{definition.name}-3",
            workflow_name=definition.name,
            workflow_version=3,
            definition_id=ID,
            sha256="0" * 64,
            steps_total=len(definition.steps),
            input=given or {},
        )
        self.definition = definition
        self.now = START
        self.state, _ = request(ID, wanted, self._meta())

    def begin(self) -> "Run":
        draft = self._draft()
        advance(self.definition, draft, self.now)
        self.state = draft.state
        return self

    def pass_time(self, seconds: float) -> "Run":
        self.now += timedelta(seconds=seconds)
        return self.begin()

    def succeed(self, path: str, output: object = None, after: float = 0.35) -> "Run":
        return self._settle(path, after, output=output)

    def fail(
        self, path: str, code: str = "http_status", kind: str = "transient", after: float = 1.2
    ) -> "Run":
        message = "The service answered 503 Service Unavailable."
        return self._settle(path, after, error_class=kind, code=code, message=message)

    def cancel(self, reason: str | None = "wrong file") -> "Run":
        draft = self._draft()
        cancel(draft, reason)
        self.state = draft.state
        return self

    def abort(self) -> "Run":
        return self.answer("abort")

    def answer(self, text: str, after: float = 60) -> "Run":
        """A person answers the one open question so."""
        self.now += timedelta(seconds=after)
        draft = self._draft()
        answer(draft, self.definition, None, text, self.now)
        self.state = draft.state
        return self.begin()

    def skip(self, path: str, reason: str) -> "Run":
        draft = self._draft()
        settle_step(draft, self.definition, path, "skip", reason)
        self.state = draft.state
        return self.begin()

    def _settle(self, path: str, after: float, **ended: object) -> "Run":
        self.now += timedelta(seconds=after)
        step = self.state.steps[path]
        draft = self._draft()
        outcome = Outcome(path, step.attempt, step.try_no, 1, **ended)  # type: ignore[arg-type]  # of the test's choice
        assert settle(draft, self.definition, outcome, self.now)
        self.state = draft.state
        return self

    def _draft(self) -> Draft:
        return Draft(self.state, self._meta())

    def _meta(self) -> Meta:
        return Meta(self.now, "test", "alice")


def linear() -> Definition:
    """Six steps; `load` has automatic re-tries, `notify` may fail."""
    retry: JsonObject = {"on_error": "retry", "retry": {"attempts": 3, "base_delay_ms": 2_000}}
    return defined(
        "import-orders",
        [
            action("fetch_orders", "check_schema"),
            action(
                "check_schema", "transform", action="set_variables", config={"values": {"a": 1}}
            ),
            action("transform", "load", action="set_variables", config={"values": {"a": 1}}),
            action("load", "cool_down", **retry),
            {"id": "cool_down", "type": "wait", "duration_ms": 60_000, "next_step": "notify"},
            action("notify", None, action="send_notification", critical=False),
        ],
    )


def branching() -> Definition:
    """A conditional with a conditional inside its `else`, one without `else`, and a human task."""
    return defined(
        "approve-order",
        [
            action("read_order", "is_large", action="set_variables"),
            conditional("is_large", "amount > 1000", "ask_boss", "is_known", "book"),
            action("ask_boss", None, action="create_task", config={"title": "OK?", "wait": True}),
            conditional("is_known", "known == true", "greet", None, None),
            action("greet", None, action="send_notification"),
            action("book", None),
        ],
    )


def composite() -> Definition:
    """A parallel; a loop with two steps in its body; a fork of which one branch is enough."""
    return defined(
        "send-parcels",
        [
            {
                "id": "check",
                "type": "parallel",
                "parallel_steps": ["check_stock", "check_address"],
                "next_step": "each_parcel",
            },
            action("check_stock", None),
            action("check_address", None),
            {
                "id": "each_parcel",
                "type": "loop",
                "loop_config": {
                    "collection": "${workflow.input.parcels}",
                    "loop_body": ["weigh", "label"],
                },
                "next_step": "carrier",
            },
            action("weigh", None),
            action("label", None),
            {
                "id": "carrier",
                "type": "fork_join",
                "fork_join_config": {
                    "join_policy": "any",
                    "branches": {"van": ["ask_van"], "post": ["ask_post"]},
                },
            },
            action("ask_van", None),
            action("ask_post", None),
        ],
    )


def undoable() -> Definition:
    """Three steps with all kinds of recovery, two of them undone by others when it is aborted."""
    other: JsonObject = {
        "id": "other_bank",
        "do": {"action": "send_notification"},
        "input": [{"path": "amount", "multiply": 0.5}],
    }
    retry: JsonObject = {"attempts": 2, "base_delay_ms": 2_000}
    return defined(
        "book-trip",
        [
            action("book_hotel", "pay", compensate_with="cancel_hotel"),
            action(
                "pay",
                "book_flight",
                retry=retry,
                config={"url": "https://example.org", "amount": 100},
                alternatives=[other],
                compensate_with="refund",
            ),
            action("book_flight", None, ask={"answer_timeout_ms": 3_600_000}),
            action("cancel_hotel", None),
            action("refund", None, retry={"attempts": 3, "base_delay_ms": 1_000}),
        ],
    )


def conditional(
    step_id: str, expression: str, then: str | None, other: str | None, following: str | None
) -> JsonObject:
    return {
        "id": step_id,
        "type": "conditional",
        "condition": {"expression": f"${{workflow.input.{expression.replace(' ', '} ', 1)}"},
        "if_true_step": then,
        "if_false_step": other,
        "next_step": following,
    }


def long_line(steps: int = 30) -> Definition:
    return defined(
        "long-line",
        [
            action(f"step_{number:02}", f"step_{number + 1:02}" if number < steps else None)
            for number in range(1, steps + 1)
        ],
    )


def retrying() -> Run:
    run = Run(linear()).begin()
    for path in ("fetch_orders", "check_schema", "transform"):
        run.succeed(path)
    return run.fail("load").pass_time(2).fail("load")


def failed() -> Run:
    return retrying().pass_time(4).fail("load", "http_client_error", "permanent")


def cancelled() -> Run:
    return retrying().cancel()


def completed() -> Run:
    run = retrying().pass_time(4).succeed("load").pass_time(60)
    return run.fail("notify", "smtp_refused", "permanent")


def waiting_for_person() -> Run:
    return Run(branching(), {"amount": 5_000, "known": True}).begin().succeed("read_order")


def small_order(known: bool = False) -> Run:
    return Run(branching(), {"amount": 5, "known": known}).begin().succeed("read_order")


def in_a_loop() -> Run:
    run = Run(composite(), {"parcels": ["P-1", "P-2", "P-3"]}).begin()
    for path in ("check/check_stock", "check/check_address"):
        run.succeed(path)
    for path in ("each_parcel[0]/weigh", "each_parcel[0]/label"):
        run.succeed(path)
    return run


def carried() -> Run:
    run = in_a_loop()
    for index in (1, 2):
        run.succeed(f"each_parcel[{index}]/weigh").succeed(f"each_parcel[{index}]/label")
    return run.succeed("carrier/post/ask_post")


def named_asides(name: str) -> tuple[Definition, ExecutionState]:
    """A compensation and an alternative whose names no validator would let pass."""
    other: JsonObject = {"id": "other", "do": {"action": "send_notification"}}
    flow = defined(
        "flow",
        [
            action("pay", "last", alternatives=[other], compensate_with=name),
            action("last", None),
            action(name, None),
        ],
    )
    run = Run(flow).begin().fail("pay").succeed("pay~alt.other").fail("last", kind="permanent")
    steps = run.state.steps
    steps = steps.set(f"pay~alt.{name}", steps["pay~alt.other"]).delete("pay~alt.other")
    steps = steps.set("pay", structs.replace(steps["pay"], via=name))
    return flow, structs.replace(run.state, steps=steps)


def rerouted() -> Run:
    run = Run(undoable()).begin().succeed("book_hotel")
    return run.fail("pay").pass_time(2).fail("pay").pass_time(4).fail("pay")


def asked() -> Run:
    return rerouted().succeed("pay~alt.other_bank").fail("book_flight")


def undoing() -> Run:
    run = asked().abort().fail("pay~undo").pass_time(1)
    return run.succeed("pay~undo")


def undone() -> Run:
    return undoing().succeed("book_hotel~undo")


def not_undone() -> Run:
    return undoing().fail("book_hotel~undo", "room_in_use", "permanent")


EXAMPLES: Mapping[str, tuple[Definition, ExecutionState | None]] = {
    "definition": (branching(), None),
    "retrying": (linear(), retrying().state),
    "failed": (linear(), failed().state),
    "cancelled": (linear(), cancelled().state),
    "completed": (linear(), completed().state),
    "person": (branching(), waiting_for_person().state),
    "branch": (branching(), small_order().succeed("book").state),
    "loop": (composite(), in_a_loop().state),
    "carried": (composite(), carried().state),
    "undoable": (undoable(), None),
    "rerouted": (undoable(), rerouted().state),
    "asked": (undoable(), asked().state),
    "undoing": (undoable(), undoing().state),
    "undone": (undoable(), undone().state),
    "not_undone": (undoable(), not_undone().state),
    "long": (long_line(), Run(long_line()).begin().succeed("step_01").state),
}
