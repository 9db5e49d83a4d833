"""What reaches a route: a body that passed the one strict reader, a query of known names.

The framework's own reader lets NaN, repeated members, lone surrogates and bodies of any size in
(what they do to a store is written in docs/explanation/architecture.md, "Poison").
"""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from email.message import Message
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from domain.json_values import (
    BODY_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    Json,
    NotStorable,
    check_storable,
    pointer_join,
    read_json,
)
from interfaces.http.labels import LABEL_PREFIX, label_filters
from interfaces.http.problems import Mistake, Refused, refused_part
from interfaces.yaml_reader import BadYaml, read_yaml

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
DROPPED_BYTES_MAX: Final = 16_000_000
"""So much of a body that is too large is still read."""
JSON_TYPE: Final = "application/json"
YAML_TYPES: Final = ("application/yaml", "application/x-yaml", "text/yaml")
"""The registered one (RFC 9512), and older names of it."""


class StrictRequest(Request):
    """A request whose body was read and checked before any route saw it."""

    def __init__(self, request: Request, content: bytes, value: Json) -> None:
        super().__init__(request.scope, request.receive)
        self._content = content
        self._value = value

    async def body(self) -> bytes:
        """The bytes as they came."""
        return self._content

    async def json(self) -> Json:
        """The value of the body, None without one."""
        return self._value


class StrictRoute(APIRoute):
    """A route that hands on strictly read requests only. `yaml` lets a body be YAML too."""

    yaml = False

    def get_route_handler(self) -> Handler:
        """FastAPI's handler behind our reader."""
        handle = super().get_route_handler()
        query_known, query_repeatable, labels = _query_names(self)
        has_body = self.body_field is not None

        async def read_then_handle(request: Request) -> Response:
            if request.scope["query_string"]:
                _check_query(request, query_known, query_repeatable, labels=labels)
            if has_body:
                request = await _read(request, yaml=self.yaml)
            return await handle(request)

        return read_then_handle


class DefinitionRoute(StrictRoute):
    """A route that takes a definition, in JSON or YAML."""

    yaml = True


def check_payload(value: Json, content: bytes, pointer: str) -> None:
    """Refuse one payload of a body above the limit of an event; a shorter body cannot hold one."""
    if len(content) > PAYLOAD_BYTES_MAX:
        try:
            check_storable(value, pointer=pointer)
        except NotStorable as error:
            raise _unstorable(error) from None


async def _read(request: Request, *, yaml: bool) -> StrictRequest:
    accepted = (JSON_TYPE, YAML_TYPES[0]) if yaml else (JSON_TYPE,)
    content = await _content(request, accepted)
    if not content:
        return StrictRequest(request, b"", None)
    media = _media_type(request, accepted)
    if yaml and media in YAML_TYPES:
        return StrictRequest(_as_json(request), content, _from_yaml(content))
    if media != JSON_TYPE and not media.endswith("+json"):
        message = f"{media or 'no content type'} is not accepted"
        raise _unsupported("Content-Type", message, accepted)
    try:
        return StrictRequest(request, content, read_json(content))
    except NotStorable as error:
        raise _unstorable(error) from None


async def _content(request: Request, accepted: Sequence[str]) -> bytes:
    """The body's bytes. One above the limit, declared or not, is read on for a while and dropped:
    most clients look for an answer only when they have sent everything.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise _unsupported("Content-Encoding", "compressed bodies are not accepted", accepted)
    declared = request.headers.get("content-length", "")
    bytes_declared = int(declared[:13]) if declared.isdigit() else 0
    too_large = bytes_declared > BODY_BYTES_MAX
    if too_large and (bytes_declared > DROPPED_BYTES_MAX or "expect" in request.headers):
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        too_large = too_large or size > BODY_BYTES_MAX
        if too_large:
            parts.clear()
        else:
            parts.append(part)
        if size > DROPPED_BYTES_MAX:
            break
    if too_large:
        raise _too_large()
    return b"".join(parts)


def _media_type(request: Request, accepted: Sequence[str]) -> str:
    declared = request.headers.get("content-type", "")
    if declared == JSON_TYPE:
        return declared
    header = Message()
    header["content-type"] = declared or "-"
    charset = header.get_param("charset", "utf-8")
    if not isinstance(charset, str) or charset.lower() not in ("utf-8", "utf8"):
        raise _unsupported("Content-Type", "the charset is not utf-8", accepted)
    return declared.partition(";")[0].strip().lower()


def _from_yaml(content: bytes) -> Json:
    try:
        return read_yaml(content).value
    except BadYaml as error:
        code = "too_large" if error.code == "too_large" else "malformed_yaml"
        raise Refused(code, str(error), [Mistake(error.pointer, error.code, str(error))]) from None


def _as_json(request: Request) -> Request:
    """The framework parses a body only when it is declared as JSON; ours is read already."""
    others = [pair for pair in request.scope["headers"] if pair[0] != b"content-type"]
    headers = [*others, (b"content-type", b"application/json")]
    return Request({**request.scope, "headers": headers}, request.receive)


def _unsupported(header: str, message: str, accepted: Sequence[str]) -> Refused:
    mistake = Mistake(f"/header/{header}", "unsupported", message, "header")
    wanted = f"send {' or '.join(accepted)} in UTF-8, not compressed."
    detail = f"{message[0].upper()}{message[1:]}; {wanted}"
    return Refused("unsupported_media_type", detail, [mistake], {"Accept": ", ".join(accepted)})


def _too_large() -> Refused:
    message = f"the body has more than {BODY_BYTES_MAX} bytes"
    # The rest of the body may not be read, so the connection cannot carry another request.
    return Refused(
        "too_large", message, [Mistake("", "too_large", message)], {"Connection": "close"}
    )


def _unstorable(error: NotStorable) -> Refused:
    code = "too_large" if error.code == "too_large" else "malformed_body"
    return Refused(code, str(error), [Mistake(error.pointer, error.code, error.message)])


def _query_names(route: APIRoute) -> tuple[frozenset[str], frozenset[str], bool]:
    """The names that a route knows, which of them may be repeated, whether labels filter."""
    parts = list(_with_dependencies(route.dependant))
    fields = [field for part in parts for field in part.query_params]
    known = frozenset(str(field.alias) for field in fields)
    lists = frozenset(
        str(each.alias) for each in fields if "list[" in str(each.field_info.annotation)
    )
    return known, lists, any(part.call is label_filters for part in parts)


def _with_dependencies(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _with_dependencies(inner)


def _check_query(
    request: Request, known: frozenset[str], repeatable: frozenset[str], *, labels: bool
) -> None:
    """A name the route does not know is a mistake: a filter with a typo would show everything."""
    seen: set[str] = set()
    for part in request.scope["query_string"].split(b"&"):
        raw_name, _, raw_value = part.partition(b"=")
        if not part:
            continue
        name, value = _decoded(raw_name, "?"), ""
        shown = pointer_join("", name)[1:]
        value = _decoded(raw_value, shown)
        if "\x00" in name or "\x00" in value:
            raise refused_part("query", shown, "nul_character", "it holds a NUL character")
        if name not in known and not (labels and name.startswith(LABEL_PREFIX)):
            raise refused_part(
                "query",
                shown,
                "unknown_parameter",
                f"known are {', '.join(sorted(known)) or 'none'}",
            )
        if name in seen and name not in repeatable:
            raise refused_part("query", shown, "repeated", "it may be given once")
        seen.add(name)


def _decoded(raw: bytes, shown: str) -> str:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise refused_part("query", shown, "bad_encoding", "it is not UTF-8") from None
