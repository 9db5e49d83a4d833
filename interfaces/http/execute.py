"""Start executions: of a workflow, of a definition in the body, or many at once."""

import asyncio
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SkipValidation,
    StringConstraints,
    ValidationError,
)
from starlette.requests import Request
from starlette.responses import Response

from application.callers import Answer, Caller
from application.requests import ExecuteOptions
from domain.errors import Invalid, NotFound, NotReady, VersionNotFound
from domain.json_values import JsonObject, pointer_join
from domain.lifecycle import TERMINAL
from domain.mistakes import Mistake as DomainMistake
from domain.recovery_config import read_recovery_config
from interfaces.caller_names import KEY_CHARACTERS_MAX, KEY_PATTERN
from interfaces.http.body import StrictRoute, check_payload
from interfaces.http.caller import (
    REQUEST,
    WAITING_REQUEST,
    caller_of,
    fingerprint_of,
)
from interfaces.http.conditional import execution_headers, wait_applied, wait_seconds
from interfaces.http.documented import COMMAND_HEADERS, body_answers
from interfaces.http.errors import definition_at, meaning_of, mistakes_of
from interfaces.http.examples import BATCH, EXECUTE, EXECUTE_INLINE
from interfaces.http.labels import LABEL_CHARACTERS_MAX, LABEL_NAME, LABELS_MAX
from interfaces.http.present import API, Body, execution_body, json_answer
from interfaces.http.problems import KINDS, Mistake, Refused, problem, problem_body
from interfaces.http.serving import ID_PATTERN, WorkflowId, services_of
from interfaces.http.shapes import DEFINITION_SCHEMA, BatchShape, ExecutionShape
from interfaces.times import Time

ITEMS_MAX: Final = 1_000
_ITEMS_AT_ONCE: Final = 100
_DELAY_SECONDS_MAX: Final = 365 * 86_400

router = APIRouter(prefix=API, tags=["executions"], route_class=StrictRoute)

LabelName = Annotated[str, StringConstraints(pattern=f"^{LABEL_NAME}$")]
LabelValue = Annotated[str, StringConstraints(max_length=LABEL_CHARACTERS_MAX)]
Version = Annotated[int, Field(ge=1, le=1_000_000, description="A version; the newest without it.")]


class Execute(BaseModel):
    """How to run it."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [EXECUTE]}
    )

    input_data: dict[str, Any] = Field(  # JSON that passed the strict reader
        default_factory=dict, description="Input of the workflow, at most 256 KB."
    )
    atomic_mode: Literal["strict", "lenient", "conditional"] = "strict"
    priority: int = Field(5, ge=0, le=9, description="Lower runs first.")
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=LABELS_MAX)
    start_at: Time | None = Field(None, description="Not before this time.")
    delay_seconds: float | None = Field(None, ge=0, le=_DELAY_SECONDS_MAX, allow_inf_nan=False)
    simulate: bool = Field(False, description="Touch nothing outside; answer simulated outputs.")
    recovery: dict[str, Any] | None = Field(  # read strictly by the domain, with pointers
        None, description="RecoveryConfig for steps that declare none of their own."
    )

    def options(self) -> ExecuteOptions:
        """The same for the use case."""
        return ExecuteOptions(
            input_data=self.input_data,
            atomic_mode=self.atomic_mode,
            priority=self.priority,
            labels=self.labels,
            start_at=self.start_at,
            delay_seconds=self.delay_seconds,
            simulate=self.simulate,
            recovery=recovery_of(self.recovery),
        )


def recovery_of(given: JsonObject | None) -> JsonObject | None:
    """The members of a RecoveryConfig that were given; raises Invalid with every mistake."""
    if given is None:
        return None
    mistakes: list[DomainMistake] = []
    read = read_recovery_config(given, "/recovery", mistakes)
    if mistakes:
        raise Invalid("The recovery configuration has mistakes.", mistakes)
    return read


class ExecuteInline(Execute):
    """A definition and how to run it."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXECUTE_INLINE]})

    definition: dict[str, Any] = Field(json_schema_extra=DEFINITION_SCHEMA)


class BatchItem(Execute):
    """One request of a batch: `workflow_id` (UUID, `wf-` id or name) or `definition`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"workflow_id": "etl"}]})

    workflow_id: str | None = Field(None, pattern=ID_PATTERN)
    version: Version | None = None
    definition: dict[str, Any] | None = Field(None, json_schema_extra=DEFINITION_SCHEMA)
    idempotency_key: str | None = Field(None, max_length=KEY_CHARACTERS_MAX, pattern=KEY_PATTERN)


class Batch(BaseModel):
    """Many requests, each taken or refused for itself."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [BATCH]})

    items: list[SkipValidation[BatchItem]] = Field(min_length=1, max_length=ITEMS_MAX)


@router.post(
    "/workflows/{workflow_id}/execute",
    status_code=202,
    response_model=ExecutionShape,
    responses=body_answers(
        "not_found",
        "workflow_inactive",
        "invalid_input",
        "idempotency_key_reused",
        "concurrent_update",
        model=ExecutionShape,
        status=(202, 200),
        headers=COMMAND_HEADERS,
        description="Taken; it runs.",
    ),
    openapi_extra=WAITING_REQUEST,
)
async def execute_workflow(
    request: Request,
    workflow_id: WorkflowId,
    body: Execute,
    version: Annotated[int | None, Query(ge=1, le=1_000_000)] = None,
) -> Response:
    """Run a workflow. 202 at once; with `Prefer: wait=N` after up to N s, 200 once it has ended."""
    caller, seconds = await caller_of(request), wait_seconds(request)
    check_payload(body.input_data, await request.body(), "/input_data")
    answer = await services_of(request).requests.execute(
        caller, workflow_id, body.options(), version=version
    )
    return await _taken(request, answer, seconds)


@router.post(
    "/executions",
    status_code=202,
    response_model=ExecutionShape,
    responses=body_answers(
        "invalid_definition",
        "invalid_input",
        "idempotency_key_reused",
        "concurrent_update",
        model=ExecutionShape,
        status=(202, 200),
        headers=COMMAND_HEADERS,
        description="Taken; it runs.",
    ),
    openapi_extra=WAITING_REQUEST,
)
async def execute_definition(request: Request, body: ExecuteInline) -> Response:
    """Run a definition that is stored with the execution and nowhere else."""
    caller, seconds = await caller_of(request), wait_seconds(request)
    check_payload(body.input_data, await request.body(), "/input_data")
    with definition_at("/definition"):
        answer = await services_of(request).requests.execute_inline(
            caller, body.definition, body.options()
        )
    return await _taken(request, answer, seconds)


async def _taken(request: Request, answer: Answer, seconds: int | None) -> Response:
    """202 with the execution; after a wait, as it is then, and 200 when it has ended."""
    services, state, view = services_of(request), answer.state, None
    if seconds is not None and not state.terminal:
        with suppress(NotReady):  # it is taken, whatever the store does now
            view = await services.history.wait_ended(state.workspace_id, str(state.id), seconds)
    view = view or answer.view
    headers = execution_headers(view, services.ledger.clock.now())
    headers["Location"] = f"{API}/executions/{view.id}"
    headers.update(wait_applied(seconds))
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    ended = view.status in TERMINAL
    return json_answer(execution_body(view), status=200 if ended else 202, headers=headers)


@router.post(
    "/executions/batch",
    status_code=202,
    response_model=BatchShape,
    responses=body_answers(
        "batch_refused",
        model=BatchShape,
        status=(202,),
        description="At least one was taken; each item has its own answer, in order.",
    ),
    openapi_extra=REQUEST,
)
async def execute_batch(request: Request, body: Batch) -> Response:
    """Start up to 1,000 executions. An item without a key of its own takes the request's
    Idempotency-Key and its place, so that a repeated batch starts nothing twice."""
    caller = await caller_of(request)
    gate = asyncio.Semaphore(_ITEMS_AT_ONCE)

    async def take(index: int, raw: object) -> Body:
        async with gate:
            return await _take(request, caller, index, raw)

    items = await asyncio.gather(*(take(index, raw) for index, raw in enumerate(body.items)))
    if any("execution" in item for item in items):
        return json_answer({"items": items}, status=202)
    if any(item["problem"]["code"] == "not_ready" for item in items):
        # 422 would say that sending it again is of no use.
        raise NotReady("No item was taken, and the store does not answer; send it again.")
    return problem(
        request,
        "batch_refused",
        "No item was taken; each has its own problem.",
        mistakes=[
            Mistake(f"/items/{index}", item["problem"]["code"], item["problem"]["detail"])
            for index, item in enumerate(items)
        ],
        facts={"items": items},
    )


async def _take(request: Request, caller: Caller, index: int, raw: object) -> Body:
    pointer = f"/items/{index}"
    try:
        answer = await _start(request, caller, index, raw)
    except Exception as error:  # noqa: BLE001 - meaning_of raises again what is no refusal
        code, detail, mistakes, _, facts = meaning_of(error)
        if isinstance(error, NotFound):
            mistakes = [Mistake(f"/{_missing(error, raw)}", code, detail)]
        moved = [
            each._replace(pointer=pointer + each.pointer)
            if each.place == "body" and not each.pointer.startswith(pointer)
            else each
            for each in mistakes
        ]
        body = problem_body(request, code, detail, mistakes=moved, facts=facts)
        return {"status": KINDS[code].status, "problem": body}
    taken: Body = {"status": 202, "execution": execution_body(answer.view)}
    if answer.replayed:
        taken["replayed"] = True
    return taken


def _missing(error: NotFound, raw: Any) -> str:
    """The member of a batch's item that names what there is not."""
    asked = isinstance(error, VersionNotFound) and raw.get("version") == error.number
    return "version" if asked else "workflow_id"


async def _start(request: Request, caller: Caller, index: int, raw: object) -> Answer:
    pointer = f"/items/{index}"
    try:
        item = BatchItem.model_validate(raw)
    except ValidationError as error:
        mistakes = mistakes_of(error.errors(), pointer)
        raise Refused("invalid_request", mistakes[0].message, mistakes) from None
    if (item.workflow_id is None) == (item.definition is None):
        message = "give workflow_id or definition, one of them"
        raise Refused("invalid_request", message, [Mistake(pointer, "contradiction", message)])
    if item.definition is not None and item.version is not None:
        message = "a definition in the request has no version; leave it out"
        mistake = Mistake(pointer_join(pointer, "version"), "contradiction", message)
        raise Refused("invalid_request", message, [mistake])
    check_payload(item.input_data, await request.body(), pointer_join(pointer, "input_data"))
    requests = services_of(request).requests
    own = _item_caller(caller, index, item, raw)
    if item.definition is not None:
        with definition_at("/definition"):
            return await requests.execute_inline(own, item.definition, item.options())
    return await requests.execute(own, item.workflow_id or "", item.options(), version=item.version)


def _item_caller(caller: Caller, index: int, item: BatchItem, raw: Any) -> Caller:
    key = item.idempotency_key
    if key is None and caller.idempotency_key is not None:
        key = f"{caller.idempotency_key} {index}"  # a blank, which no caller's key can hold
    body: JsonObject = raw
    return Caller(
        workspace_id=caller.workspace_id,
        actor=caller.actor,
        route=f"{caller.route}:item",
        idempotency_key=key,
        fingerprint=fingerprint_of(caller.route, "", body) if key is not None else None,
        correlation_id=caller.correlation_id,
    )
