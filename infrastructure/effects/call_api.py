"""The action `call_api`: one HTTP request, its answer as the step's output.

Config: `{url, method? GET, headers? {}, query? {}, body?, timeout_ms?, expect_status?}`.
Output: `{status, statusText, data, headers}`; `data` is the parsed JSON, text, or
`{contentType, base64}` for other bytes; `headers` only those of `_HEADERS_KEPT`.
"""

import base64
from collections.abc import Iterator, Mapping

import httpx2
import msgspec

from application.steps import StepContext, StepFailure
from domain.json_values import Json, JsonObject, NotStorable, read_json
from domain.mistakes import Mistake
from infrastructure.effects.attempt_headers import attempt_headers
from infrastructure.effects.config_fields import (
    ANY,
    INTEGER,
    OBJECT,
    TEXT,
    Field,
    mistakes_as_written,
    require_valid,
)
from infrastructure.effects.http_status import status_failure
from infrastructure.effects.outbound import Outbound, OutboundAnswer, OutboundRequest
from infrastructure.effects.outbound_urls import mistake_of_url

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

# Set by the connection; another value would let a request be read as two, or be answered packed.
_HEADERS_REFUSED = frozenset(
    (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "accept-encoding",
        "proxy-authorization",
        "proxy-connection",
    )
)
# Answers carry cookies and tokens in headers; the ledger keeps what a flow may need, by name.
_HEADERS_KEPT = (
    "content-type",
    "date",
    "etag",
    "last-modified",
    "link",
    "location",
    "retry-after",
    "x-request-id",
    "x-total-count",
)
_HEADER_NAME = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


def _url_mistake(value: Json) -> str | None:
    return mistake_of_url(str(value))


def _method_mistake(value: Json) -> str | None:
    known = ", ".join(sorted(METHODS))
    return None if str(value).upper() in METHODS else f"must be one of {known}"


def _headers_mistake(value: Json) -> str | None:
    for name, text in value.items() if isinstance(value, dict) else ():
        if not name or not set(name.lower()) <= _HEADER_NAME:
            return f"{name!r} is no header name"
        if name.lower() in _HEADERS_REFUSED:
            return f"{name} is set by the connection and cannot be chosen"
        if type(text) not in (str, int):
            return f"the value of {name} must be text"
        if not str(text).isascii() or not str(text).isprintable():
            return f"the value of {name} must be printable ASCII on one line"
    return None


def _query_mistake(value: Json) -> str | None:
    for name, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, dict) or (
            isinstance(item, list) and any(isinstance(part, dict | list) for part in item)
        ):
            return f"{name!r} must be text, a number, true, false, null or a list of these"
    return None


def _timeout_mistake(value: Json) -> str | None:
    return None if isinstance(value, int) and value > 0 else "must be above 0 milliseconds"


def _expected(value: Json) -> frozenset[int]:
    codes = value if isinstance(value, list) else [value]
    return frozenset(code for code in codes if type(code) is int and 100 <= code <= 599)


def _expect_mistake(value: Json) -> str | None:
    count = len(value) if isinstance(value, list) else 1
    if count and len(_expected(value)) == count:
        return None
    return "must be a status between 100 and 599, or a list of different ones"


FIELDS: Mapping[str, Field] = {
    "url": Field(kinds=TEXT, required=True, mistake=_url_mistake),
    "method": Field(kinds=TEXT, mistake=_method_mistake),
    "headers": Field(kinds=OBJECT, mistake=_headers_mistake),
    "query": Field(kinds=OBJECT, mistake=_query_mistake),
    "body": Field(kinds=ANY),
    "timeout_ms": Field(kinds=INTEGER, mistake=_timeout_mistake),
    "expect_status": Field(kinds=(int, list), mistake=_expect_mistake),
}


class CallApi:
    """Calls an HTTP service. A status that is no success fails the step and keeps its output."""

    name = "call_api"
    touches_outside = True

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    def check(self, config: JsonObject, pointer: str) -> Iterator[Mistake]:
        return mistakes_as_written(FIELDS, config, pointer)

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        require_valid(FIELDS, config)
        answer = await self._outbound.send(_request(config, context))
        expected = config.get("expect_status")
        is_success = (
            200 <= answer.status < 300 if expected is None else answer.status in _expected(expected)
        )
        if is_success:
            return _output(answer, _data(answer))
        raise status_failure(answer, _output(answer, _data_of_failure(answer)))


def _request(config: JsonObject, context: StepContext) -> OutboundRequest:
    content, content_type = _content(config.get("body"))
    headers = {
        "Idempotency-Key": context.idempotency_key,
        **({"Content-Type": content_type} if content_type else {}),
    }
    given = config.get("headers") or {}
    if isinstance(given, dict):
        chosen = {name.lower() for name in given}
        headers = {name: text for name, text in headers.items() if name.lower() not in chosen}
        headers |= {name: str(text) for name, text in given.items()}
    headers |= attempt_headers(context)
    seconds = context.timeout_seconds
    if isinstance(timeout_ms := config.get("timeout_ms"), int):
        seconds = min(seconds, timeout_ms / 1000)
    return OutboundRequest(
        method=str(config.get("method") or "GET").upper(),
        url=_url_with_query(str(config["url"]), config.get("query")),
        timeout_seconds=seconds,
        headers=headers,
        body=content,
    )


def _content(body: Json) -> tuple[bytes, str | None]:
    if body is None:
        return b"", None
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return msgspec.json.encode(body), "application/json"


def _url_with_query(url: str, query: Json) -> str:
    if not isinstance(query, dict) or not query:
        return url
    pairs = [
        (name, _query_text(item))
        for name, value in query.items()
        for item in (value if isinstance(value, list) else [value])
        if item is not None
    ]
    parsed = httpx2.URL(url)
    return str(parsed.copy_with(params=[*parsed.params.multi_items(), *pairs]))


def _query_text(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _output(answer: OutboundAnswer, data: Json) -> JsonObject:
    kept: JsonObject = {
        name: answer.headers[name] for name in _HEADERS_KEPT if name in answer.headers
    }
    return {
        "status": answer.status,
        "statusText": answer.reason,
        "data": data,
        "headers": kept,
    }


def _data(answer: OutboundAnswer) -> Json:
    """The body as JSON value; raises `StepFailure` for JSON that the ledger cannot hold."""
    if not answer.body:
        return None
    content_type = answer.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            return read_json(answer.body)
        except NotStorable as error:
            raise StepFailure(
                "output_not_storable",
                f"{answer.url} answered JSON that cannot be kept, at {error.pointer or '/'}: "
                f"{error.message}",
                error_class="permanent",
            ) from error
    return _text(answer.body) or {
        "contentType": content_type[:200],
        "base64": base64.b64encode(answer.body).decode(),
    }


def _data_of_failure(answer: OutboundAnswer) -> Json:
    """As `_data`, but a body that is not what it says it is must not hide the status."""
    try:
        return _data(answer)
    except StepFailure:
        return _text(answer.body)


def _text(body: bytes) -> str | None:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
