"""An agent's record: what its events make of it, and how it is described."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from msgspec import structs

from domain.agent_reader import Described, read_agent
from domain.agents import (
    AgentSettings,
    AgentState,
    agent_uuid,
    decide_change,
    decide_delete,
    decide_register,
    evolve,
)
from domain.errors import AgentExists
from domain.events import Event, Meta, Payload, WorkflowActivated
from domain.json_values import JsonObject
from domain.mistakes import Mistake

ID = agent_uuid("default", "scorer")
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = AgentSettings(url="https://scorer.example", auth_type="bearer", secret_id="s-1")


def told(state: AgentState | None, *payloads: Payload, by: str = "alice") -> AgentState:
    for payload in payloads:
        version = 1 if state is None else state.version + 1
        meta = Meta(at=AT + timedelta(seconds=version), cmd="c", actor=by)
        state = evolve(state, Event(ID, version, meta, payload))
    assert state is not None
    return state


def registered() -> AgentState:
    return told(None, *decide_register(None, "scorer", SETTINGS))


def described(raw: JsonObject, before: Described | None = None) -> tuple[Described, list[Mistake]]:
    mistakes: list[Mistake] = []
    return read_agent(raw, lambda url: None, mistakes, before), mistakes


def test_a_registration_holds_every_setting() -> None:
    state = registered()
    assert (state.settings, state.status, state.version) == (SETTINGS, "active", 1)
    assert (state.created_by, state.created_at) == ("alice", AT + timedelta(seconds=1))


def test_a_change_holds_only_what_is_different() -> None:
    state = registered()
    settings = structs.replace(SETTINGS, timeout_ms=5_000)
    (changed,) = decide_change(state, settings, "inactive")
    assert structs.asdict(changed) == {"settings": {"timeout_ms": 5_000}, "status": "inactive"}
    after = told(state, changed, by="bob")
    assert (after.settings, after.status, after.updated_by) == (settings, "inactive", "bob")
    assert (after.created_by, after.created_at) == (state.created_by, state.created_at)
    assert decide_change(after, settings, "inactive") == ()


def test_a_deleted_agent_has_no_credential_and_its_name_is_free() -> None:
    state = registered()
    with pytest.raises(AgentExists):
        decide_register(state, "scorer", SETTINGS)
    gone = told(state, *decide_delete(state))
    assert (gone.status, gone.settings.secret_id) == ("deleted", None)
    assert decide_delete(gone) == ()
    anew = told(gone, *decide_register(gone, "scorer", AgentSettings(transport="pull")), by="bob")
    assert (anew.version, anew.status, anew.created_by) == (3, "active", "bob")


def test_settings_of_an_earlier_release_get_the_defaults_of_new_members() -> None:
    (payload,) = decide_register(None, "scorer", SETTINGS)
    stored = structs.asdict(payload)["settings"]
    del stored["recovery"], stored["protocol"]
    assert registered().settings == told(None, payload).settings


def test_events_of_others_are_refused() -> None:
    with pytest.raises(TypeError):
        told(registered(), WorkflowActivated())
    with pytest.raises(TypeError):
        told(None, *decide_delete(registered()))


def test_a_description_round_trips_through_a_change_of_nothing() -> None:
    raw: JsonObject = {
        "name": "scorer",
        "url": "https://scorer.example",
        "auth_type": "apikey",
        "auth_config": {"key": "${ secret.SCORER }", "header_name": "X-Key"},
        "recovery": {"on_failure": "FALLBACK", "fallback_agent": "other"},
    }
    first, mistakes = described(raw)
    assert mistakes == []
    assert first.settings.secret_reference == "${ secret.SCORER }"
    again, mistakes = described({}, first)
    assert mistakes == []
    assert (again.settings, again.keeps_credential) == (first.settings, True)


def test_null_takes_back_what_may_be_left_out() -> None:
    before, _ = described({"name": "a", "transport": "pull", "url": "https://a.example"})
    after, mistakes = described({"url": None, "description": None, "recovery": None}, before)
    assert (mistakes, after.settings.url) == ([], None)
    called, _ = described({"name": "a", "url": "https://a.example"})
    _, mistakes = described({"url": None}, called)
    assert [each.pointer for each in mistakes] == ["/url"]


def test_waits_that_would_all_be_cut_are_a_contradiction() -> None:
    for initial, longest in pairwise((1_000, 2_000, 1_000)):
        config: JsonObject = {"initial_delay_ms": initial, "max_delay_ms": longest}
        _, mistakes = described({"name": "a", "transport": "pull", "retry_config": config})
        assert [each.code for each in mistakes] == ([] if initial <= longest else ["contradiction"])


def test_an_agent_is_not_its_own_fallback() -> None:
    recovery: JsonObject = {"on_failure": "FALLBACK", "fallback_agent": "a"}
    _, mistakes = described({"name": "a", "transport": "pull", "recovery": recovery})
    assert [each.pointer for each in mistakes] == ["/recovery/fallback_agent"]
