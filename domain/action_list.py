"""W's form of a definition: `actions`, a chain in list order, rewritten as steps by id.

An action has `type`, and may have `id` (default `action-N`, N from 0), `config`, `conditions`,
`timeout` in milliseconds (default 30,000 where something runs) and `onError` (default stop).
"""

from collections.abc import Iterator
from typing import Final

from domain.json_values import Json, JsonObject
from domain.mistakes import SECONDS_MAX, Fields, Mistake, Places, is_number

TIMEOUT_MS_DEFAULT: Final = 30_000
_FIELDS: Final = frozenset({"id", "type", "config", "conditions", "timeout", "onError"})
_UNTIMED: Final = frozenset({"wait", "delay", "condition", "create_task"})
_RENAMED: Final = {"action": "type", "timeout_seconds": "timeout", "on_error": "onError"}


def steps_of_actions(
    actions: list[Json], mistakes: list[Mistake]
) -> Iterator[tuple[str, str, JsonObject]]:
    """(id, pointer of the action, step) of each action that has an id of its own."""
    kept: dict[str, Fields] = {}
    for index, action in enumerate(actions):
        written = f"/actions/{index}"
        if not isinstance(action, dict):
            message = "An action is a JSON object with a type."
            mistakes.append(Mistake(written, "not_an_object", message))
            continue
        fields = Fields(action, written, mistakes)
        step_id = _id(fields, index)
        if step_id in kept:
            fields.refuse("duplicate_id", f"The id {step_id!r} is used twice.", "id")
        else:
            kept[step_id] = fields
    following = [*list(kept)[1:], None]
    for (step_id, fields), after in zip(kept.items(), following, strict=False):
        fields.refuse_others(_FIELDS)
        yield step_id, fields.pointer, _step(fields, after)


def note_places(pointer: str, written: str, places: Places) -> None:
    """Where the parts of the step at `pointer` stand in the action at `written`."""
    places.note(pointer, written)
    for field, name in _RENAMED.items():
        places.note(f"{pointer}/{field}", f"{written}/{name}")


def _id(action: Fields, index: int) -> str:
    given = action.raw.get("id", f"action-{index}")
    if isinstance(given, str):
        return given
    action.refuse("bad_identifier", "id is text.", "id")
    return f"action-{index}"


def _step(action: Fields, following: str | None) -> JsonObject:
    raw = action.raw
    step: JsonObject = {
        "type": "action",
        "action": raw.get("type"),
        "config": raw.get("config", {}),
        "conditions": raw.get("conditions", []),
        "next_step": following,
    }
    if "onError" in raw:
        step["on_error"] = raw["onError"]
    kind = raw.get("type")
    default = None if isinstance(kind, str) and kind in _UNTIMED else TIMEOUT_MS_DEFAULT
    timeout = raw.get("timeout", default)
    if timeout is None:
        return step
    if is_number(timeout) and 0 < timeout <= SECONDS_MAX * 1_000:
        step["timeout_seconds"] = timeout / 1_000
    else:
        message = f"timeout is milliseconds above 0, at most {SECONDS_MAX * 1_000}."
        action.refuse("out_of_range", message, "timeout")
    return step
