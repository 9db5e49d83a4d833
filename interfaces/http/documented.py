"""How routes tell OpenAPI what they answer: problems by code, headers of commands and reads."""

from typing import Any, Final

from pydantic import BaseModel

from interfaces.http.problems import KINDS, PROBLEM_TYPE

Responses = dict[int | str, dict[str, Any]]  # FastAPI's own type

_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_HEADERS: Final[dict[str, dict[str, Any]]] = {  # OpenAPI header objects
    "ETag": {"description": 'The version in quotes, as `"7"`.', "schema": _TEXT},
    "Location": {"description": "Where the execution is read.", "schema": _TEXT},
    "Retry-After": {
        "description": "Seconds after which to look again: 1 in its first 10 s, then 2 up to a "
        "minute, 5 up to ten, 15 up to an hour, else 30; the time to the next timer when it "
        "waits for one. `Prefer: wait` or the stream are better than polling.",
        "schema": _WHOLE,
    },
    "Preference-Applied": {"description": "`wait=N` when a wait was used.", "schema": _TEXT},
    "Idempotency-Replayed": {"description": "`true` when it was done before.", "schema": _TEXT},
    "Link": {"description": 'RFC 8288; `rel="next"` when there is more.', "schema": _TEXT},
}
_ALWAYS: Final = ("invalid_request", "not_ready")


def answers(
    *codes: str,
    model: type[BaseModel] | None = None,
    status: tuple[int, ...] = (200,),
    headers: tuple[str, ...] = (),
    description: str = "Done.",
) -> Responses:
    """The answers of a route: its good ones, and the problems with these codes of `KINDS`."""
    responses: Responses = {}
    for number in status:
        responses[number] = {"description": description if number == status[0] else "Done already."}
        if model is not None:
            responses[number]["model"] = model
        if headers:
            responses[number]["headers"] = {name: _HEADERS[name] for name in headers}
    return responses | _problems((*codes, *_ALWAYS))


def body_answers(*codes: str, **good: Any) -> Responses:
    """`answers` of a route that reads a body."""
    return answers("malformed_body", "too_large", "unsupported_media_type", *codes, **good)


EXECUTION_HEADERS: Final = ("ETag", "Retry-After", "Preference-Applied")
COMMAND_HEADERS: Final = ("Location", *EXECUTION_HEADERS, "Idempotency-Replayed")


def _problems(codes: tuple[str, ...]) -> Responses:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": " · ".join(
                f"`{code}`: {KINDS[code].title}" for code in dict.fromkeys(each)
            ),
            "content": {PROBLEM_TYPE: {"schema": schema}},
        }
        for status, each in sorted(by_status.items())
    }
