"""Definitions to run, and `Run`: an execution driven in memory through the real decisions."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from domain import decisions, interventions
from domain import events as ev
from domain.children import ChildEnd, Pinned, pin, settle_child
from domain.decisions import Outcome, Request
from domain.definition import Definition, compile_definition, count_steps
from domain.dispatching import TaskResult, record_dispatches, settle_result
from domain.draft import Draft
from domain.execution import ExecutionState, evolve, fold
from domain.execution_state import Dispatched
from domain.forking import fork as fork_of
from domain.json_values import Json, JsonObject, sha256_of
from domain.mistakes import Mistake
from domain.planner import next_due, running_actions
from domain.recovery_config import completed
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules
from domain.validation import validate

# Any in this file is JSON that a test writes down, which has no narrower type than it looks.
START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
EXECUTION_ID = UUID("019c0000-0000-7000-8000-000000000001")
FORK_ID = UUID("019c0000-0000-7000-8000-000000000002")


class Actions:
    """A catalogue of three actions; the setting `bad` is a mistake in each."""

    def names(self) -> frozenset[str]:
        return frozenset({"call_api", "send_notification", "set_variables"})

    def check(self, action: str, config: JsonObject, pointer: str) -> Iterable[Mistake]:
        if "bad" in config:
            yield Mistake(f"{pointer}/bad", "bad_value", f"{action} takes no bad.")


# --- definitions ---


def step(following: str | None = None, **fields: Any) -> JsonObject:
    """An action step; `action="wait"` and such replace what it does."""
    return {"action": "set_variables", "next_step": following, **fields}


def wait(following: str | None = None, milliseconds: Json = 1_000, **fields: Any) -> JsonObject:
    return {"type": "wait", "duration_ms": milliseconds, "next_step": following, **fields}


def branch(
    expression: str,
    then: str | None,
    other: str | None = None,
    following: str | None = None,
    **fields: Any,
) -> JsonObject:
    return {
        "type": "conditional",
        "condition": expression,
        "then_step": then,
        "else_step": other,
        "next_step": following,
        **fields,
    }


def parallel(children: list[str], following: str | None = None, **fields: Any) -> JsonObject:
    return {"type": "parallel", "parallel_steps": [*children], "next_step": following, **fields}


def loop(
    collection: Json, body: list[str], following: str | None = None, **fields: Any
) -> JsonObject:
    """A loop; members of `loop_config` may be given by name, `errors` is its `on_error`."""
    config: JsonObject = {"collection": collection, "loop_body": [*body]}
    for name in ("execution_mode", "max_parallelism", "max_iterations"):
        if name in fields:
            config[name] = fields.pop(name)
    if "errors" in fields:
        config["on_error"] = fields.pop("errors")
    return {"type": "loop", "loop_config": config, "next_step": following, **fields}


def fork(
    branches: Mapping[str, Any], following: str | None = None, policy: str = "all", **fields: Any
) -> JsonObject:
    """A fork_join; a branch is a list of ids, or an object with `steps`."""
    config: JsonObject = {
        "branches": {
            name: branch if isinstance(branch, dict) else {"steps": branch}
            for name, branch in branches.items()
        },
        "join_policy": policy,
    }
    for name in ("n_required", "branch_timeout_seconds"):
        if name in fields:
            config[name] = fields.pop(name)
    return {
        "type": "fork_join",
        "fork_join_config": config,
        "next_step": following,
        **fields,
    }


def agent(following: str | None = None, name: str = "far", **fields: Any) -> JsonObject:
    """A step that an agent does, as it is written most often: without a type."""
    return {"agent_name": name, "next_step": following, **fields}


def task(following: str | None = None, *, waits: bool = True, **fields: Any) -> JsonObject:
    config: JsonObject = {"title": "Sign it", "wait": waits}
    return {"action": "create_task", "config": config, "next_step": following, **fields}


def call(following: str | None = None, workflow_id: str = "inner", **fields: Any) -> JsonObject:
    """A sub_workflow step."""
    return {
        "type": "sub_workflow",
        "workflow_id": workflow_id,
        "next_step": following,
        **fields,
    }


def event(following: str | None = None, name: str = "paid", **fields: Any) -> JsonObject:
    """A wait_for_event step."""
    return {"type": "wait_for_event", "event_source": name, "next_step": following, **fields}


def workflow(steps: Mapping[str, Any], **fields: Any) -> JsonObject:
    """A definition that starts with the first of `steps`."""
    return {"name": "orders", "start_step": next(iter(steps), ""), "steps": dict(steps), **fields}


def linear(count: int, **fields: Any) -> JsonObject:
    """A chain s1, s2, ... of action steps."""
    names = [f"s{number}" for number in range(1, count + 1)]
    following: list[str | None] = [*names[1:], None]
    return workflow(
        {name: step(after, **fields) for name, after in zip(names, following, strict=True)}
    )


def with_condition(expression: str = "${workflow.input.big}", **fields: Any) -> JsonObject:
    """check -> (hi | lo) -> end."""
    steps: JsonObject = {
        "check": branch(expression, "hi", "lo", "end", **fields),
        "hi": step(),
        "lo": step(),
        "end": step(),
    }
    return workflow(steps)


def with_wait(milliseconds: Json = 5_000) -> JsonObject:
    """first -> pause -> last."""
    return workflow({"first": step("pause"), "pause": wait("last", milliseconds), "last": step()})


def normalised(raw: Any) -> JsonObject:
    """The stored form of a definition that must have no mistakes."""
    verdict = validate(raw, Actions())
    assert verdict.mistakes == ()
    assert verdict.normalised is not None
    return verdict.normalised


def mistakes_of(raw: Any) -> dict[str, str]:
    """Codes of what is wrong with a definition, by pointer."""
    return {mistake.pointer: mistake.code for mistake in validate(raw, Actions()).mistakes}


def compiled(raw: Any) -> Definition:
    return compile_definition(normalised(raw))


# --- an execution in memory ---


class Run:
    """One execution, one worker, a clock that moves when told to. `events` is its whole log."""

    def __init__(
        self,
        raw: Any,
        given: Any = None,
        *,
        mode: str = "strict",
        simulate: bool = False,
        start_at: datetime | None = None,
        recovery: JsonObject | None = None,
        rules: RecoveryRules = DEFAULT_RULES,
        transports: Mapping[str, str] | None = None,
    ) -> None:
        """`transports` by agent: how work reaches it."""
        form = normalised(raw)
        self.transports = transports or {}
        self.rules = rules
        self.definition = compile_definition(form)
        self.now = START
        self.epoch = 1
        self.commands = 0
        wanted = Request(
            workflow_id="wf-orders-1",
            workflow_name="orders",
            workflow_version=1,
            definition_id=EXECUTION_ID,
            sha256=sha256_of(form),
            steps_total=count_steps(form),
            input=given or {},
            atomic_mode=mode,
            simulate=simulate,
            start_at=start_at,
            recovery=rules.config if recovery is None else completed(recovery, rules.config),
        )
        self.state, first = decisions.request(EXECUTION_ID, wanted, self.meta())
        self.events: list[ev.Event] = [first]

    def meta(self, actor: str = "ann") -> ev.Meta:
        self.commands += 1
        return ev.Meta(at=self.now, cmd=f"c{self.commands}", actor=actor)

    def draft(self) -> Draft:
        return Draft(self.state, self.meta())

    def store(self, draft: Draft) -> list[str]:
        """Keep what was decided; returns it told in short."""
        assert draft.base_version == self.state.version
        record_dispatches(draft, self.definition, self.transports)
        self.state = draft.state
        self.events += draft.events
        return [told(event.data) for event in draft.events]

    def go(self) -> list[str]:
        """The worker holds its tries and looks what is due."""
        return self.resume(running_actions(self.definition, self.state))

    def resume(self, held: Iterable[str] = ()) -> list[str]:
        """A worker takes over; tries that are not `held` have lost theirs."""
        draft = self.draft()
        decisions.resume(draft, self.definition, held, self.epoch, self.now, self.rules)
        return self.store(draft)

    def lose_worker(self) -> list[str]:
        self.epoch += 1
        return self.resume()

    def pass_time(self, seconds: float) -> list[str]:
        self.now += timedelta(seconds=seconds)
        return self.go()

    def pass_to_due(self) -> list[str]:
        due = next_due(self.state)
        assert due is not None
        self.now = max(self.now, due)
        return self.go()

    def outcome(self, path: str, **fields: Any) -> Outcome:
        """Of the present try of `path`."""
        present = self.state.steps[path]
        return Outcome(path, present.attempt, present.try_no, self.epoch, **fields)

    def settle(self, outcome: Outcome) -> list[str]:
        draft = self.draft()
        decisions.settle(draft, self.definition, outcome, self.now, rules=self.rules)
        return self.store(draft)

    def succeed(self, path: str, output: Any = None) -> list[str]:
        return self.settle(self.outcome(path, output=output))

    def fail(
        self,
        path: str,
        error_class: str = "transient",
        *,
        retryable: bool = True,
        message: str = "it broke",
        **fields: Any,
    ) -> list[str]:
        ended: dict[str, Any] = {"code": "boom", "message": message, "retryable": retryable}
        return self.settle(self.outcome(path, error_class=error_class, **{**ended, **fields}))

    def task(self, path: str) -> Dispatched:
        """The task that the present try of `path` is."""
        dispatched = self.state.steps[path].dispatched
        assert dispatched is not None
        return dispatched

    def send_back(self, path: str, **fields: Any) -> list[str]:
        """The agent answers the task at `path`."""
        result = TaskResult(correlation_id=self.task(path).correlation_id, **fields)
        draft = self.draft()
        settle_result(draft, self.definition, path, result, self.now, rules=self.rules)
        return self.store(draft)

    def answer(self, text: str, question_id: str | None = None) -> list[str]:
        """A person answers the open question, or the one that is named."""
        draft = self.draft()
        decisions.answer(draft, self.definition, question_id, text, self.now, self.rules)
        return self.store(draft)

    def signal(self, name: str = "paid", payload: Json = None) -> list[str]:
        """Somebody sends a signal, and the worker looks."""
        draft = self.draft()
        decisions.signal(draft, name, payload)
        return self.store(draft) + self.go()

    def pin(self, path: str, *, wait: bool = True) -> list[str]:
        """The engine found which version the try at `path` runs."""
        present = self.state.steps[path]
        place = (path, present.attempt, present.try_no)
        draft = self.draft()
        found = Pinned(*place, "wf-inner-1", "inner", 1, EXECUTION_ID, "", 1, wait)
        pin(draft, self.definition, found, self.epoch, self.now, rules=self.rules)
        return self.store(draft)

    def end_child(self, child_id: UUID, **fields: Any) -> list[str]:
        """The engine saw that a child has ended; `fields` are those of the outcome."""
        child = self.state.children[child_id]
        outcome = Outcome(child.path, child.attempt, child.try_no, self.epoch, **fields)
        draft = self.draft()
        state = "FAILED" if outcome.error_class else "COMPLETED"
        settle_child(
            draft, self.definition, ChildEnd(child_id, state, outcome), self.now, self.rules
        )
        return self.store(draft) + self.go()

    def cancel(self, reason: str | None = None) -> list[str]:
        draft = self.draft()
        decisions.cancel(draft, reason)
        return self.store(draft)

    def retry(self, resume_from: str | None = None) -> list[str]:
        draft = self.draft()
        decisions.retry(draft, self.definition, resume_from, "again")
        return self.store(draft)

    def pause(self, seconds: float | None = None, reason: str | None = None) -> list[str]:
        draft = self.draft()
        interventions.pause(draft, seconds, reason)
        return self.store(draft)

    def go_on(self) -> list[str]:
        """The pause is over; the worker looks what comes next."""
        draft = self.draft()
        interventions.resume(draft, None)
        return [*self.store(draft), *self.go()]

    def settle_by_hand(
        self, verb: str, path: str, output: Json = None, reason: str = "it is stuck"
    ) -> list[str]:
        """An operator skips or completes a live step."""
        draft = self.draft()
        interventions.settle_step(draft, self.definition, path, verb, reason, output)
        return self.store(draft)

    def fork(self, from_step: str, given: JsonObject | None = None) -> "Run":
        """Another execution, from `from_step` of this one on."""
        other = copy(self)
        other.state, events = fork_of(
            self.state, self.definition, from_step, given, "what if", FORK_ID, other.meta()
        )
        other.events = list(events)
        return other

    def complete_task(self, task_id: str, result: Json = None) -> list[str]:
        draft = self.draft()
        decisions.complete_human_task(draft, task_id, result)
        return self.store(draft)

    def succeed_all(self) -> "Run":
        """Let every action succeed and every time pass until nothing moves any more."""
        self.go()
        while not self.state.terminal:
            running = running_actions(self.definition, self.state)
            if running:
                self.succeed(running[0], {"ok": True})
            elif next_due(self.state) is not None:
                self.pass_to_due()
            else:
                break
        return self

    def statuses(self) -> dict[str, str]:
        """Every step's state by path."""
        return {path: step.state for path, step in sorted(self.state.steps.items())}

    def as_of(self, version: int) -> ExecutionState:
        state = fold(self.events[:version])
        assert state is not None
        return state


def replay(events: Sequence[ev.Event]) -> list[ExecutionState]:
    """The state after each event."""
    states: list[ExecutionState] = []
    for event in events:
        states.append(evolve(states[-1] if states else None, event))
    return states


def told(data: ev.Payload) -> str:
    """A fact in a few words: kind, path, and what a story turns on."""
    kind = data.TOPIC.removeprefix("execution.").rpartition(".")[0]
    match data:
        case ev.StepStarted(path=path, try_no=try_no):
            return f"{kind} {path} #{try_no}"
        case ev.StepRedelivered(path=path, delivery=delivery):
            return f"{kind} {path} x{delivery}"
        case ev.StepFailed(path=path, code=code):
            return f"{kind} {path} {code}"
        case ev.StepSkipped(path=path, why=why):
            return f"{kind} {path} {why}"
        case ev.BranchTaken(path=path, branch=taken):
            return f"{kind} {path} {taken}"
        case ev.RetryScheduled(path=path, delay_ms=delay_ms):
            return f"{kind} {path} {delay_ms}ms"
        case ev.Completed(partial=partial):
            return f"{kind} partial" if partial else kind
        case ev.Failed(reason=reason):
            return f"{kind} {reason}"
        case ev.LateResultIgnored(path=path, outcome=outcome):
            return f"{kind} {path} {outcome}"
    return _told_of_lane(kind, data)


def _told_of_lane(kind: str, data: ev.Payload) -> str:
    match data:
        case ev.IterationStarted(path=path, index=index):
            return f"{kind} {path}[{index}]"
        case ev.IterationFinished(path=path, index=index, state=state):
            return f"{kind} {path}[{index}] {state}"
        case ev.BranchStarted(path=path, branch=branch):
            return f"{kind} {path}/{branch}"
        case ev.BranchFinished(path=path, branch=branch, state=state):
            return f"{kind} {path}/{branch} {state}"
        case ev.SignalReceived(name=name):
            return f"{kind} {name}"
        case ev.Joined(path=path, cancelled=cancelled):
            return " ".join((kind, path, *(f"-{name}" for name in cancelled)))
    return f"{kind} {_recovery_told(data)}".rstrip()


def _recovery_told(data: ev.Payload) -> str:
    match data:
        case ev.AlternativeSelected(path=path, id=alternative):
            return f"{path} {alternative}"
        case ev.QuestionAnswered(path=path, kind=answer, read_as=read_as):
            return f"{path} {answer} {read_as}"
        case ev.RecoverySucceeded(path=path, strategy=strategy):
            return f"{path} {strategy}"
        case ev.RecoveryExhausted(path=path, reason=reason):
            return f"{path} {reason}"
        case ev.CompensationStarted(reason=reason, paths=paths):
            return f"{reason}: {' '.join(paths)}"
        case ev.StepSettled(path=path, state=state) | ev.StepKept(path=path, state=state):
            return f"{path} {state}"
        case ev.ForkedFrom(from_step=from_step):
            return from_step
    return str(getattr(data, "path", ""))
