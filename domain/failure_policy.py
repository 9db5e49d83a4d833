"""What a step does about failure, from the several ways to say it, in one normal form.

`critical` says whether the failure ends the execution, `recovery` lists in order what is tried
before, `recovery_config` holds what the step says otherwise than its execution, `compensate_with`
names the step that undoes it.
"""

from collections.abc import Iterator
from typing import Final

from domain.agent_names import AGENT, agent_action
from domain.json_values import JsonObject, pointer_join
from domain.mistakes import Fields, Places
from domain.older_recovery import read_recovery_strategy, read_retry_strategy
from domain.recovery_config import read_recovery_config
from domain.stage_reader import (
    read_alternative,
    read_alternatives,
    read_ask,
    read_retry,
    refuse_repeated_ids,
)

_RETRY_FIELDS: Final = ("retry", "retry_strategy", "recovery_strategy")
_STAGE_FIELDS: Final = (*_RETRY_FIELDS, "alternatives", "ask", "enable_user_fulfillment")
FIELDS: Final = frozenset(
    ["critical", "on_error", "recovery", "recovery_config", "compensate_with", *_STAGE_FIELDS]
)
_OF_FAILURE: Final = FIELDS - {"compensate_with"}
_KINDS: Final = ("retry", "alternative", "ask")
Stage = tuple[JsonObject, tuple[str | int, ...]]
"""A stage in its normal form, and where it is written inside the step."""


def read_failure_policy(step: Fields, step_id: str, kind: str, places: Places) -> JsonObject:
    """The members that every step has: `critical, recovery, recovery_config, compensate_with`.

    on_error is stop (default), continue or retry.
    """
    mode, critical = _mode(step), _critical(step)
    if mode is not None and critical is (mode == "continue"):
        meant = str(mode != "continue").lower()
        message = f"on_error {mode!r} means critical {meant}; leave one of the two out."
        step.refuse("contradiction", message, "critical")
    settings = _settings(step)
    own_action = _own_action(step, kind)
    if "recovery" in step.raw:
        _refuse_beside_recovery(step, mode)
        stages = _listed(step, own_action)
    else:
        _refuse_second_retry(step, mode)
        stages = list(_spelled(step, step_id, mode, own_action, settings))
    refuse_repeated_ids(step, stages)
    for index, (stage, written) in enumerate(stages):
        where = pointer_join(step.pointer, "recovery", index)
        places.note(where, pointer_join(step.pointer, *written))
        if stage["kind"] == "alternative" and kind not in ("action", AGENT, "sub_workflow"):
            message = (
                "Only a step that performs an action, asks an agent or runs a workflow has "
                "alternatives."
            )
            step.refuse("contradiction", message, *written)
    return {
        "critical": mode != "continue" if critical is None else critical,
        "recovery": [stage for stage, _ in stages],
        "recovery_config": settings or None,
        "compensate_with": step.step_id("compensate_with"),
    }


def is_silent(raw: JsonObject) -> bool:
    """Whether a step as it was sent says nothing of its failure; how it is undone is no part of it.

    A normal form is never silent.
    """
    return all(raw.get(field) is None for field in _OF_FAILURE)


def _own_action(step: Fields, kind: str) -> str | None:
    name = {"action": step.raw.get("action"), AGENT: step.raw.get("agent_name")}.get(kind)
    if not isinstance(name, str):
        return None
    return agent_action(name) if kind == AGENT else name


def _mode(step: Fields) -> str | None:
    mode = step.raw.get("on_error")
    if mode is None or mode in ("stop", "continue", "retry"):
        return str(mode) if mode else None
    step.refuse("bad_value", "on_error is stop, continue or retry.", "on_error")
    return None


def _critical(step: Fields) -> bool | None:
    critical = step.raw.get("critical")
    if critical is None or isinstance(critical, bool):
        return critical
    step.refuse("bad_value", "critical is true or false.", "critical")
    return None


def _settings(step: Fields) -> JsonObject:
    raw = step.raw.get("recovery_config")
    if raw is None:
        return {}
    pointer = pointer_join(step.pointer, "recovery_config")
    return read_recovery_config(raw, pointer, step.mistakes, of_step=True)


def _refuse_beside_recovery(step: Fields, mode: str | None) -> None:
    given = [field for field in _STAGE_FIELDS if step.raw.get(field) is not None]
    if mode is not None or given:
        others = ", ".join(["on_error"] * (mode is not None) + given)
        message = f"Give the list recovery, or {others}, not both."
        step.refuse("contradiction", message, "recovery")


def _refuse_second_retry(step: Fields, mode: str | None) -> None:
    given = _retry_fields(step)
    for field in given[1:]:
        step.refuse("contradiction", f"Give {given[0]} or {field}, not both.", field)
    if mode in ("stop", "continue"):
        for field in given[:1]:
            message = f"on_error {mode!r} does not retry; leave on_error out."
            step.refuse("contradiction", message, field)


def _listed(step: Fields, own_action: str | None) -> list[Stage]:
    """The list `recovery`: alternatives as many as wanted, one retry, one question."""
    raw = step.raw["recovery"]
    if not isinstance(raw, list):
        step.refuse("bad_value", "recovery is a list of stages.", "recovery")
        return []
    stages: list[Stage] = []
    for index, each in enumerate(raw):
        place = ("recovery", index)
        kind = each.get("kind") if isinstance(each, dict) else None
        if kind not in _KINDS or not isinstance(each, dict):
            step.refuse("bad_value", f"A stage has a kind: {', '.join(_KINDS)}.", *place)
            continue
        if kind != "alternative" and any(stage["kind"] == kind for stage, _ in stages):
            step.refuse("contradiction", f"There is one stage of kind {kind} only.", *place)
            continue
        stages.append((_stage(step, str(kind), each, own_action, index), place))
    return stages


def _stage(
    step: Fields, kind: str, raw: JsonObject, own_action: str | None, index: int
) -> JsonObject:
    if kind == "alternative":
        return read_alternative(step, raw, "recovery", index, own_action=own_action)
    if kind == "ask":
        return read_ask(step, raw, "recovery", index)
    settings = {name: value for name, value in raw.items() if name != "kind"}
    return read_retry(step, settings, "recovery", index)


def _spelled(
    step: Fields, step_id: str, mode: str | None, own_action: str | None, settings: JsonObject
) -> Iterator[Stage]:
    """The stages from fields of their own: retry, then alternatives, then a question."""
    raw = step.raw
    chosen: JsonObject | None = None
    if raw.get("retry") is not None:
        yield read_retry(step, raw["retry"], "retry"), ("retry",)
    elif mode == "retry" and not _retry_fields(step):
        yield read_retry(step, {}, "on_error"), ("on_error",)
    if raw.get("retry_strategy") is not None:
        yield read_retry_strategy(step), ("retry_strategy",)
    if raw.get("recovery_strategy") is not None:
        chosen, given = read_recovery_strategy(step, step_id)
        if given.keys() & settings.keys():
            message = "recovery_config.retry_attempts says it too; leave one of the two out."
            step.refuse("contradiction", message, "recovery_strategy")
        settings.update(given)
    if chosen is not None and chosen["kind"] == "alternative":
        yield chosen, ("recovery_strategy",)
    if raw.get("alternatives") is not None:
        found = read_alternatives(step, raw["alternatives"], "alternatives", own_action=own_action)
        for index, alternative in enumerate(found):
            yield alternative, ("alternatives", index)
    yield from _question(step, chosen, settings)


def _retry_fields(step: Fields) -> list[str]:
    """The fields that say how to retry; R's is one of them only where it says Retry."""
    strategy = step.raw.get("recovery_strategy")
    return [
        field
        for field in _RETRY_FIELDS
        if step.raw.get(field) is not None
        and (field != "recovery_strategy" or (isinstance(strategy, dict) and "Retry" in strategy))
    ]


def _question(step: Fields, chosen: JsonObject | None, settings: JsonObject) -> Iterator[Stage]:
    raw, enabled = step.raw.get("ask"), step.flag("enable_user_fulfillment")
    declared = raw is not None and raw is not False
    if enabled is False and declared:
        message = "enable_user_fulfillment false forbids to ask; leave one of the two out."
        step.refuse("contradiction", message, "enable_user_fulfillment")
    if enabled is False:
        settings["enable_user_fulfillment"] = False
    if chosen is not None and chosen["kind"] == "ask":
        if declared:
            message = "recovery_strategy asks already; leave one of the two out."
            step.refuse("contradiction", message, "ask")
        yield chosen, ("recovery_strategy",)
    elif declared:
        yield read_ask(step, raw, "ask"), ("ask",)
    elif enabled:
        yield read_ask(step, {}, "enable_user_fulfillment"), ("enable_user_fulfillment",)
