"""Publish, find, revise and retire workflows. Compiled definitions are shared by all executions of
a version.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from msgspec import structs

from application.agent_directory import AgentDirectory, NoAgents
from application.call_cycles import CallCheck
from application.callers import Caller
from application.ports import Clock, EventLog
from application.streams import Done, Streams
from domain import workflow as wf
from domain.agent_policy import with_policies
from domain.agent_uses import AgentUse
from domain.definition import Definition, compile_definition
from domain.definition_reader import ActionCatalog, Mistake
from domain.errors import Invalid, InvalidDefinition, NotFound
from domain.events import Payload
from domain.execution import ExecutionState
from domain.json_values import Json, JsonObject
from domain.recovery_rules import RecoveryRules
from domain.validation import Verdict, validate
from domain.workflow import WorkflowState, workflow_uuid

_DEFINITIONS_KEPT: Final = 1_000


class Published(NamedTuple):
    """The workflow after a publish; `number` is the version meant; `warnings` were no reason to
    refuse.
    """

    state: WorkflowState
    number: int
    warnings: tuple[Mistake, ...]
    replayed: bool


class Workflows:
    """The workflow use cases."""

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        new_id: Callable[[], UUID],
        actions: ActionCatalog,
        check_schema: Callable[[Json], str | None],
        agents: AgentDirectory | None = None,
    ) -> None:
        """`agents` None: there are none."""
        self._streams = Streams(log, clock, new_id, kind="workflow", evolve=wf.evolve)
        self._actions = actions
        self._check_schema = check_schema
        self._agents: AgentDirectory = agents or NoAgents()
        self._definitions: OrderedDict[str, Definition] = OrderedDict()

    def validate(self, definition: Json) -> Verdict:
        """All mistakes of a definition; nothing is stored."""
        return validate(definition, self._actions, self._check_schema)

    async def verdict(self, workspace_id: str, definition: Json) -> Verdict:
        """What publishing would say and store: also whether the agents that it names exist and
        can be reached, and whether the workflows that it runs lead back to it.
        """
        verdict = await self._with_agents(workspace_id, self.validate(definition))
        if not verdict.calls or verdict.normalised is None:
            return verdict
        name = str(verdict.normalised["name"])
        check = CallCheck(workspace_id, name, _named, self.load)
        mistakes, warnings = await check.remarks(verdict.calls)
        return verdict._replace(
            mistakes=(*verdict.mistakes, *mistakes), warnings=(*verdict.warnings, *warnings)
        )

    async def _with_agents(self, workspace_id: str, verdict: Verdict) -> Verdict:
        if not verdict.agents:
            return verdict
        if verdict.silent:
            silent = sorted(set(verdict.silent.values()))
            verdict = with_policies(verdict, await self._agents.policies(workspace_id, silent))
        names = sorted({each.agent for each in verdict.agents})
        unknown = await self._agents.unknown(workspace_id, names)
        cut_off = await self._agents.out_of_reach(workspace_id, names)
        return verdict._replace(
            mistakes=(*verdict.mistakes, *_remarks(verdict, "unknown_agent", unknown)),
            warnings=(*verdict.warnings, *_remarks(verdict, "no_kafka", cut_off)),
        )

    async def accepted(
        self, workspace_id: str, definition: Json
    ) -> tuple[JsonObject, tuple[Mistake, ...]]:
        """The normalised form and the warnings, or InvalidDefinition with every mistake.

        Of a definition that is published nowhere: it cannot lead back to itself.
        """
        verdict = await self._with_agents(workspace_id, self.validate(definition))
        return self._accepted(verdict)

    def _accepted(self, verdict: Verdict) -> tuple[JsonObject, tuple[Mistake, ...]]:
        if verdict.mistakes or verdict.normalised is None:
            count = len(verdict.mistakes)
            raise InvalidDefinition(
                f"The definition has {count} mistake{'s'[: count - 1]}; nothing is stored.",
                verdict.mistakes,
            )
        return verdict.normalised, verdict.warnings

    async def publish(self, caller: Caller, definition: Json) -> Published:
        """The next version of the workflow with this name."""
        normalised, warnings = self._accepted(await self.verdict(caller.workspace_id, definition))
        name = str(normalised["name"])
        source = definition if isinstance(definition, dict) else {}
        stream = workflow_uuid(caller.workspace_id, name)

        async def decide(state: WorkflowState | None) -> Sequence[Payload]:
            return wf.decide_publish(state, name, normalised, source)

        return _published(await self._streams.command(caller, stream, decide), warnings)

    async def revise(self, caller: Caller, ref: str, changes: JsonObject) -> Published:
        """PUT: changed fields of the newest definition make a new version; `status` alone changes
        only the status.
        """
        fields = {key: value for key, value in changes.items() if key != "status"}
        status = changes.get("status")
        if status is not None and status not in ("active", "inactive"):
            raise Invalid(
                "status is active or inactive; DELETE retires a workflow.",
                [Mistake("/status", "bad_value", "status is active or inactive.")],
            )
        found, _ = await self.find(caller.workspace_id, ref)
        warnings: tuple[Mistake, ...] = ()

        async def decide(newest: WorkflowState | None) -> Sequence[Payload]:
            nonlocal warnings
            state = newest or found
            caller.check_version(state.version)
            facts: list[Payload] = []
            if fields:
                source = _renewed(state, fields)
                verdict = await self.verdict(caller.workspace_id, source)
                normalised, warnings = self._accepted(verdict)
                facts += wf.decide_publish(state, state.name, normalised, source)
                state = structs.replace(state, status="active")
            if isinstance(status, str):
                facts += wf.decide_status(state, status)
            return facts

        return _published(await self._streams.command(caller, found.id, decide), warnings)

    async def set_status(self, caller: Caller, ref: str, status: str) -> WorkflowState:
        """active, inactive or deleted. Raises PreconditionFailed."""
        found, _ = await self.find(caller.workspace_id, ref)

        async def decide(state: WorkflowState | None) -> Sequence[Payload]:
            caller.check_version((state or found).version)
            return wf.decide_status(state or found, status)

        return (await self._streams.command(caller, found.id, decide)).state

    async def find(
        self, workspace_id: str, ref: str, *, trusted: bool = True
    ) -> tuple[WorkflowState, int]:
        """By UUID, `wf-{name}-{n}` or name; with the version number that is meant."""
        try:
            return await self._find(workspace_id, ref, trusted=trusted)
        except NotFound:
            if not trusted:
                raise
        # Another process may have published it a moment ago.
        return await self._find(workspace_id, ref, trusted=False)

    async def _find(
        self, workspace_id: str, ref: str, *, trusted: bool
    ) -> tuple[WorkflowState, int]:
        name, number = _named(ref)
        state: WorkflowState | None = None
        try:
            wanted = UUID(ref)
        except ValueError:
            for candidate, meant in ((ref, None), (name, number)):
                if candidate:
                    stream = workflow_uuid(workspace_id, candidate)
                    state = await self.load(stream, trusted=trusted)
                if state is not None:
                    number = meant
                    break
        else:
            state = await self.load(wanted, trusted=trusted)
        if state is None or state.workspace_id != workspace_id or state.status == "deleted":
            raise NotFound(
                f"There is no workflow {ref[:200]!r}. List them with GET /api/v1/workflows."
            )
        number = len(state.versions) if number is None else number
        state.numbered(number)
        return state, number

    async def definition(self, execution: ExecutionState) -> Definition:
        """The compiled definition that an execution runs."""
        known = self._definitions.get(execution.sha256)
        if known is not None:
            return known
        if execution.definition is not None:
            return self.compiled(execution.sha256, execution.definition)
        stream = workflow_uuid(execution.workspace_id, execution.workflow_name)
        state = await self.load(stream)
        if state is None or len(state.versions) < execution.workflow_version:
            state = await self.load(stream, trusted=False)
        if state is None:
            raise NotFound(f"The definition of execution {execution.id} is not in the log.")
        version = state.numbered(execution.workflow_version)
        return self.compiled(version.sha256, version.definition)

    async def transports(
        self, execution: ExecutionState, definition: Definition, rules: RecoveryRules
    ) -> Mapping[str, str]:
        """How work reaches the agents that an execution may need. Raises NotReady."""
        names = sorted(definition.agents | rules.agents)
        return await self._agents.transports(execution.workspace_id, names) if names else {}

    def compiled(self, sha256: str, normalised: JsonObject) -> Definition:
        """Frozen values of a normalised definition, made once."""
        known = self._definitions.get(sha256)
        if known is None:
            known = self._definitions[sha256] = compile_definition(normalised)
            if len(self._definitions) > _DEFINITIONS_KEPT:
                self._definitions.popitem(last=False)
        return known

    async def load(self, stream: UUID, *, trusted: bool = True) -> WorkflowState | None:
        """See `Streams.load`."""
        return await self._streams.load(stream, trusted=trusted)


def _remarks(verdict: Verdict, code: str, problems: Mapping[str, str]) -> Iterator[Mistake]:
    """About each place that names an agent with a problem."""
    for use in verdict.agents:
        if use.agent in problems:
            yield Mistake(use.pointer, code, _told_of(use, problems[use.agent]))


def _told_of(use: AgentUse, problem: str) -> str:
    if use.fallback_of is None:
        return problem
    return f"{use.fallback_of!r} falls back to {use.agent!r}. {problem}"


def _published(done: Done[WorkflowState], warnings: tuple[Mistake, ...]) -> Published:
    return Published(done.state, len(done.then.versions), warnings, done.replayed)


def _renewed(state: WorkflowState, fields: JsonObject) -> JsonObject:
    """The newest definition as it was sent, with changed fields."""
    if fields.get("name", state.name) != state.name:
        raise Invalid(
            "A workflow keeps its name; publish a new one instead.",
            [Mistake("/name", "bad_value", "A workflow keeps its name.")],
        )
    return state.newest().source | fields


def _named(ref: str) -> tuple[str, int | None]:
    """(name, n) of `wf-{name}-{n}`; ("", None) for anything else."""
    middle, _, digits = ref.removeprefix("wf-").rpartition("-")
    if (
        ref.startswith("wf-")
        and middle
        and digits.isascii()
        and digits.isdigit()
        and len(digits) < 10
    ):
        return middle, int(digits)
    return "", None
