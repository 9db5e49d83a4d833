"""What is said to an agent and what it answers: JSON-RPC 2.0 `message/send`, or the simple form.

Translation only. A reply becomes the step's output, or a `StepFailure` that says what is wrong.
"""

import json
import textwrap
from collections.abc import Iterable
from typing import Final

import msgspec

from application.steps import StepFailure
from domain.json_values import Json, JsonObject, NotStorable, check_storable, read_json
from infrastructure.effects.failure_texts import plain_message
from infrastructure.effects.http_status import error_class_of, status_detail
from infrastructure.effects.outbound import OutboundAnswer
from infrastructure.effects.outbound_urls import without_query
from infrastructure.effects.secrets import Mask

EXCERPT_CHARACTERS: Final = 200
BODY_CHARACTERS_KEPT: Final = 2_000


def request_body(protocol: str, task_id: str, given: JsonObject) -> bytes:
    """The body of the call for the task `task_id` with the step's input."""
    if protocol == "simple":
        return msgspec.json.encode({"task_id": task_id, "input": given})
    part = {"kind": "text", "text": _text_for(given)}
    message = {"role": "user", "messageId": f"msg-{task_id}", "parts": [part]}
    return msgspec.json.encode(
        {"jsonrpc": "2.0", "id": task_id, "method": "message/send", "params": {"message": message}}
    )


def output_of(protocol: str, task_id: str, answer: OutboundAnswer, mask: Mask) -> Json:
    """The step's output, without what `mask` takes out.

    Raises StepFailure: `http_status` (transient for 5xx, 408, 425, 429), and permanent ones:
    `agent_redirects`, `bad_agent_reply`, `wrong_reply_id`, `agent_error` (it says that it failed),
    `task_not_completed`.
    """
    if not 200 <= answer.status < 300:
        raise _status_failure(answer, mask)
    reply = _object(answer, mask)
    return (
        _simple_output(reply, task_id)
        if protocol == "simple"
        else _jsonrpc_output(reply, task_id, answer.url)
    )


def _text_for(given: JsonObject) -> str:
    for name in ("text", "query"):
        value = given.get(name)
        if value is not None:
            return value if isinstance(value, str) else _json_text(value)
    return _json_text(given)


def _json_text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- the answer as such ---


def _status_failure(answer: OutboundAnswer, mask: Mask) -> StepFailure:
    text = mask.text(answer.body.decode("utf-8", "replace"))
    code = "http_status"
    said = "" if _looks_like_html(answer) else _excerpt(text, EXCERPT_CHARACTERS)
    if 300 <= answer.status < 400:
        code = "agent_redirects"
        target = without_query(answer.headers.get("location", "nowhere"))
        said = f"it redirects to {target}; register the address that answers"
    return StepFailure(
        code,
        f"HTTP {answer.status}: {said or answer.reason or 'no text'}",
        error_class=error_class_of(answer.status),
        output={"status": answer.status, "body": _excerpt(text, BODY_CHARACTERS_KEPT)},
        detail=status_detail(answer),
    )


def _excerpt(text: str, characters: int) -> str:
    """The beginning, up to the end of a word: half a secret could not be taken out any more."""
    return textwrap.shorten(plain_message(text), characters, placeholder=" …")


def _object(answer: OutboundAnswer, mask: Mask) -> JsonObject:
    try:
        value = mask.json(read_json(answer.body))
    except NotStorable as error:
        raise _bad_reply(answer.url, _why_unreadable(answer, error)) from error
    if not isinstance(value, dict):
        raise _bad_reply(answer.url, "answered JSON that is not an object")
    return value


def _why_unreadable(answer: OutboundAnswer, error: NotStorable) -> str:
    if not answer.body:
        return f"answered {answer.status} without a body"
    if _looks_like_html(answer):
        return "answered a page in HTML, not JSON; look whether its URL is the agent's"
    return f"answered what cannot be read as JSON, at {error.pointer or '/'}: {error.message}"


def _looks_like_html(answer: OutboundAnswer) -> bool:
    is_said = "html" in answer.headers.get("content-type", "").lower()
    return is_said or answer.body.lstrip()[:1] == b"<"


def _bad_reply(who: str, what: str) -> StepFailure:
    return StepFailure("bad_agent_reply", f"{who} {what}", error_class="permanent")


def _check_id(found: Json, task_id: str) -> None:
    if found == task_id:
        return
    shown = _excerpt(_json_text(found), EXCERPT_CHARACTERS)
    raise StepFailure(
        "wrong_reply_id",
        f"the agent answered for {shown} when it was asked for {task_id!r}; a reply repeats the id "
        "of its request",
        error_class="permanent",
    )


# --- the simple form ---


def _simple_output(reply: JsonObject, task_id: str) -> Json:
    if reply.get("task_id") is not None:
        _check_id(reply["task_id"], task_id)
    match reply.get("status"):
        case "success":
            return reply.get("output")
        case "error":
            error = reply.get("error")
            said = error if isinstance(error, str) else _json_text(error)
            raise StepFailure(
                "agent_error",
                said if error else "the agent answered status error without saying why",
                error_class="permanent",
                output=reply,
            )
    raise _bad_reply("the agent", 'answered without "status": "success" or "error"')


# --- JSON-RPC ---


def _jsonrpc_output(reply: JsonObject, task_id: str, url: str) -> Json:
    if reply.get("jsonrpc") != "2.0":
        raise _bad_reply(url, 'answered without "jsonrpc": "2.0"; if it speaks the simple form, '
                              "register it with that protocol")  # fmt: skip
    error, result = reply.get("error"), reply.get("result")
    if error is not None:
        if reply.get("id") is not None:  # null when the agent could not read the request
            _check_id(reply["id"], task_id)
        raise _error_failure(error)
    _check_id(reply.get("id"), task_id)
    if not isinstance(result, dict):
        raise _bad_reply(url, "answered without result and without error")
    output = _with_findings(result, task_id)
    if result.get("kind") == "message":  # an answer at once, without a task
        return output
    status = result.get("status")
    state = status.get("state") if isinstance(status, dict) else None
    if state == "completed":
        return output
    if not isinstance(state, str):
        raise _bad_reply(url, "answered a result without status.state")
    said = _text_of(_parts_of(status.get("message") if isinstance(status, dict) else None))
    raise StepFailure(
        "task_not_completed",
        f"Task state: {_excerpt(state, EXCERPT_CHARACTERS)}" + (f": {said}" if said else ""),
        error_class="permanent",
        output=output,
    )


def _error_failure(error: Json) -> StepFailure:
    code, message = (
        (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, error)
    )
    said = message if isinstance(message, str) else _json_text(message)
    return StepFailure(
        "agent_error",
        f"JSON-RPC Error {_excerpt(_json_text(code), EXCERPT_CHARACTERS)}: {said}",
        error_class="permanent",
        output={"error": error},
    )


def _with_findings(result: JsonObject, task_id: str) -> JsonObject:
    """The whole result, and what steps after this one look for in it, where it was found."""
    parts = _parts_of(result) + [
        part for artifact in _objects(result.get("artifacts")) for part in _parts_of(artifact)
    ]
    spoken = [
        message
        for message in _objects(result.get("history"))
        if message.get("role") in ("agent", "assistant")
    ]
    status = result.get("status")
    if isinstance(status, dict) and isinstance(status.get("message"), dict):
        spoken = spoken or _objects([status["message"]])
    text = _text_of(parts)
    response = _text_of(_parts_of(spoken[-1])) if spoken else ""
    found: JsonObject = {
        "text": text,
        "response": response,
        "context_id": result.get("contextId"),
        "task_id": result.get("id") or task_id,
        "parts": [*parts],
        "json": _json_in(parts),
    }
    own = {name: value for name, value in result.items() if not found.get(name)}
    return found | own


def _parts_of(message: Json) -> list[JsonObject]:
    return _objects(message.get("parts")) if isinstance(message, dict) else []


def _objects(value: Json) -> list[JsonObject]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text_of(parts: Iterable[JsonObject]) -> str:
    return "\n".join(text for part in parts if isinstance(text := part.get("text"), str))


def _json_in(parts: list[JsonObject]) -> Json:
    """The data of data parts (of several: a list), else the first text that is JSON in braces."""
    data = [part.get("data") for part in parts if part.get("kind") == "data"]
    if data:
        return data[0] if len(data) == 1 else data
    for part in parts:
        text = part.get("text")
        if isinstance(text, str) and text.lstrip()[:1] in ("{", "["):
            try:
                value = read_json(text.encode())
                check_storable({"json": value})  # one level deeper than in the text
            except NotStorable:  # it only begins like JSON, or could not be kept
                continue
            return value
    return None
