"""Refusals and mishaps as problems: what each exception means to a caller."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from application.ports import Overloaded, StoreUnavailable
from application.reads import BadCursor
from domain.errors import (
    ExecutionNotFound,
    FlowledgerError,
    Invalid,
    InvalidDefinition,
    KeyReused,
    MomentNotFound,
    NotReady,
    PreconditionFailed,
    QuestionNotFound,
    StateConflict,
    StepNotFound,
    StepNotReached,
    VersionNotFound,
)
from domain.json_values import Json, pointer_join
from interfaces.http.conditional import etag
from interfaces.http.problems import KINDS, Mistake, Refused, problem

_PLACES = ("query", "header", "path")


class Meaning(NamedTuple):
    """What an exception means: the parts of a problem."""

    code: str
    detail: str
    mistakes: Sequence[Mistake] = ()
    headers: Mapping[str, str] | None = None
    facts: Mapping[str, Json] | None = None


def meaning_of(error: Exception) -> Meaning:
    """The problem that an exception stands for; raises it again when it stands for none."""
    if isinstance(error, Refused):
        return Meaning(error.code, error.detail, error.mistakes, error.headers)
    if isinstance(error, FlowledgerError):
        return _refusal(error)
    if isinstance(error, BadCursor):
        text = str(error) or "This cursor was not given out for these filters."
        mistake = Mistake("/query/cursor", "bad_cursor", text, "query")
        return Meaning("bad_cursor", text, [mistake])
    if isinstance(error, Overloaded):
        return _not_ready(str(error), error.retry_after_seconds)
    if isinstance(error, StoreUnavailable):
        return _not_ready("The store does not answer; try again.", 1)
    raise error


def mistakes_of(errors: Sequence[ErrorDetails], prefix: str = "") -> list[Mistake]:
    """Pydantic's findings as mistakes; `prefix` is where the validated value stands in the body."""
    return [_found(error, prefix) for error in errors]


@contextmanager
def definition_at(pointer: str) -> Iterator[None]:
    """Put the pointers of a definition's mistakes below the place where the body holds it."""
    try:
        yield
    except InvalidDefinition as error:
        moved = [each._replace(pointer=pointer + each.pointer) for each in error.mistakes]
        raise InvalidDefinition(error.message, moved) from error


def add_handlers(app: FastAPI) -> None:
    """Let every refusal end as a problem."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)
    for kind in (Refused, FlowledgerError, BadCursor, Overloaded, StoreUnavailable):
        app.add_exception_handler(kind, _product)


async def _product(request: Request, error: Exception) -> Response:
    meaning = meaning_of(error)
    mistakes = meaning.mistakes
    if meaning.code == "not_found" and not mistakes and request.path_params:
        mistakes = [_missing(request, error, meaning.detail)]
    code = meaning.code
    if code == "illegal_transition" and _is_run(request):
        code = "run_illegal"
    return problem(
        request,
        code,
        meaning.detail,
        mistakes=mistakes,
        headers=meaning.headers,
        facts=meaning.facts,
    )


def _missing(request: Request, error: Exception, detail: str) -> Mistake:
    """Where the caller named what there is not: as a rule the last part of the path."""
    if isinstance(error, QuestionNotFound):
        return Mistake("/question_id", "not_found", detail)
    if isinstance(error, MomentNotFound):
        return Mistake("/query/as_of", "not_found", detail, "query")
    if isinstance(error, VersionNotFound):
        asked = request.query_params.get("version", "")
        if asked == str(error.number):
            return Mistake("/query/version", "not_found", detail, "query")
    names = list(request.path_params)
    name = names[0] if isinstance(error, ExecutionNotFound) else names[-1]
    return Mistake(f"/path/{name}", "not_found", detail, "path")


def _is_run(request: Request) -> bool:
    """The older `/runs` names answer an illegal verb with 400."""
    return getattr(request.scope.get("route"), "path", "").startswith("/api/v1/runs/")


async def _invalid(request: Request, error: Exception) -> Response:
    found = mistakes_of(error.errors()) if isinstance(error, RequestValidationError) else []
    first = found[0].message if found else "The request is malformed."
    more = f" ({len(found)} mistakes)" if len(found) > 1 else ""
    place = f"{found[0].pointer}: " if found and found[0].pointer else ""
    return problem(request, "invalid_request", f"{place}{first}{more}", mistakes=found)


async def _framework(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 405:
        return _method_not_allowed(request)
    if error.status_code == 404:
        detail = "There is nothing at this address; /docs lists what there is."
        return problem(
            request, "not_found", detail, mistakes=[Mistake("/path", "not_found", detail, "path")]
        )
    codes = [code for code, kind in KINDS.items() if kind.status == error.status_code]
    return problem(request, codes[0] if codes else "invalid_request", str(error.detail))


def _method_not_allowed(request: Request) -> Response:
    """405 with every method of the address; the framework names only those of its first route.

    An address that is spelled out, as `/executions/batch`, is not also the id of something.
    """
    matching = [each for each in request.app.router.routes if each.matches(request.scope)[0].value]
    exact = [each for each in matching if not getattr(each, "param_convertors", None)]
    methods: set[str] = set()
    for route in exact or matching:
        methods |= getattr(route, "methods", None) or set()
    if "GET" in methods:
        methods.add("HEAD")
    allowed = ", ".join(sorted(methods))
    method = str(request.scope["method"])
    detail = f"{method[:20]} is not possible here; possible are {allowed}."
    mistake = Mistake("/method", "method_not_allowed", detail, "path")
    return problem(
        request, "method_not_allowed", detail, mistakes=[mistake], headers={"Allow": allowed}
    )


def _refusal(error: FlowledgerError) -> Meaning:
    code = error.code if error.code in KINDS else "invalid_request"
    match error:
        case Invalid():
            return Meaning(code, error.message, [_placed(each) for each in error.mistakes])
        case StateConflict():
            facts: dict[str, Json] = {
                "current_status": error.current_status,
                "allowed_actions": list(error.allowed_actions),
            }
            return Meaning(code, error.message, facts=facts)
        case PreconditionFailed():
            mistake = Mistake("/header/If-Match", code, error.message, "header")
            return Meaning(
                code,
                error.message,
                [mistake],
                {"ETag": etag(error.version)},
                {"current_version": error.version},
            )
        case NotReady():
            return _not_ready(error.message, error.retry_after_seconds, code)
        case StepNotFound():
            return Meaning(code, error.message, [Mistake("/path", code, error.message)])
        case StepNotReached():
            return Meaning(code, error.message, [Mistake(f"/{error.field}", code, error.message)])
        case KeyReused():
            mistake = Mistake("/header/Idempotency-Key", code, error.message, "header")
            return Meaning(code, error.message, [mistake])
        case _:
            return Meaning(code, error.message)


def _not_ready(text: str, seconds: int, code: str = "not_ready") -> Meaning:
    return Meaning(code, text, (), {"Retry-After": str(max(1, seconds))})


def _placed(found: Any) -> Mistake:
    """A mistake of the domain; its pointer says when it is not in the body."""
    place = next((each for each in _PLACES if found.pointer.startswith(f"/{each}/")), "body")
    return Mistake(found.pointer, found.code, found.message, place)


def _found(error: ErrorDetails, prefix: str) -> Mistake:
    where, *path = error["loc"] or ("body",)
    code, message = error["type"], error["msg"]
    if where in _PLACES:
        return Mistake(pointer_join("", where, *path), code, message, str(where))
    if where != "body":
        path = [where, *path]
    if path and path[-1] == "[key]":  # pydantic's mark for a member's name; no place of its own
        path = path[:-1]
    if code == "missing" and not path:
        message = "The body is missing; send a JSON object."
    if code == "extra_forbidden":
        code, message = "unknown_field", "This field is not known here."
    return Mistake(prefix + pointer_join("", *path), code, message)
