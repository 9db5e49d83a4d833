"""Every event comes back as it was, today and from every release."""

import json
from datetime import UTC, datetime
from types import NoneType
from typing import Any, ClassVar, get_args, get_origin
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.events import PAYLOADS, Event, Meta, Payload
from domain.json_values import JsonObject, NotStorable
from infrastructure.event_store.codec import UPCASTS, Codec, UnknownTopic
from tests.histories import golden
from tests.strategies import storable_json, storable_objects, storable_text

GOLDEN = json.loads(golden.EVENTS.read_text("utf-8"))
CODEC = Codec()
times = st.datetimes(timezones=st.just(UTC))


def values(kind: Any) -> st.SearchStrategy[Any]:
    if get_origin(kind) is dict:
        texts = st.dictionaries(storable_text, storable_text, max_size=3)
        return texts if get_args(kind)[1] is str else storable_objects
    if get_origin(kind) is tuple:
        return st.lists(storable_text, max_size=3).map(tuple)
    if NoneType in get_args(kind):
        (other,) = [option for option in get_args(kind) if option is not NoneType]
        return st.none() | values(other)
    return {
        str: storable_text,
        int: st.integers(-(2**53), 2**53),
        bool: st.booleans(),
        datetime: times,
        UUID: st.uuids(),
        Any: storable_json,
    }[kind]


def payloads(payload: type[Payload]) -> st.SearchStrategy[Payload]:
    fields = msgspec.structs.fields(payload)
    return st.builds(payload, **{field.name: values(field.type) for field in fields})


metas = st.builds(
    Meta,
    at=times,
    cmd=storable_text,
    actor=storable_text,
    ws=storable_text,
    corr=st.none() | storable_text,
    cause=st.none() | storable_text,
    fingerprint=st.none() | storable_text,
)


@given(
    st.lists(
        st.builds(
            Event,
            st.uuids(),
            st.integers(1, 2**53),
            metas,
            st.sampled_from(PAYLOADS).flatmap(payloads),
        ),
        max_size=4,
    )
)
def test_every_event_comes_back_as_it_was(events: list[Event]) -> None:
    for event, state in zip(events, CODEC.encode(events), strict=True):
        back = CODEC.recorded(7, event.execution_id, event.version, event.data.TOPIC, state)
        assert back.position == 7
        assert back.event == event
        assert type(back.event.data) is type(event.data)


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.TOPIC)
def test_private_fields_are_stored_apart(payload: type[Payload]) -> None:
    event = Event(golden.EXECUTION_ID, 1, golden.META, golden.sample_payload(payload))
    state = json.loads(CODEC.encode([event])[0])
    assert list(state) == ["meta", "data", "private"]
    assert set(state["private"]) == set(payload.PRIVATE)
    assert set(state["data"]) == set(payload.__struct_fields__) - set(payload.PRIVATE)


def test_the_topics_are_those_that_were_pinned() -> None:
    pinned = golden.TOPICS.read_text("utf-8").split()
    assert sorted(CODEC.topics) == pinned, (
        "a topic is added with `python -m tests.histories.golden`"
    )
    assert sorted(GOLDEN) == pinned


@pytest.mark.parametrize("topic", sorted(GOLDEN))
def test_stored_events_of_every_release_are_readable(topic: str) -> None:
    entry = GOLDEN[topic]
    assert (
        golden.readable(*CODEC.decode(topic, json.dumps(entry["state"]).encode()))
        == (entry["reads_as"])
    )


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.TOPIC)
def test_what_is_written_today_is_what_was_pinned(payload: type[Payload]) -> None:
    event = Event(golden.EXECUTION_ID, 1, golden.META, golden.sample_payload(payload))
    assert json.loads(CODEC.encode([event])[0]) == GOLDEN[payload.TOPIC]["state"]


def test_an_unknown_topic_is_never_skipped() -> None:
    with pytest.raises(UnknownTopic, match=r"execution\.exploded\.v1.*newer release"):
        CODEC.decode("execution.exploded.v1", b"{}")


def test_fields_of_a_newer_release_are_passed_over() -> None:
    state = json.loads(json.dumps(GOLDEN["execution.started.v1"]["state"]))
    state["data"]["colour"] = "blue"
    state["meta"]["tenant"] = "t"
    meta, payload = CODEC.decode("execution.started.v1", json.dumps(state).encode())
    assert golden.readable(meta, payload) == GOLDEN["execution.started.v1"]["reads_as"]


class Renamed(Payload, frozen=True):
    TOPIC: ClassVar[str] = "execution.renamed.v2"
    PRIVATE: ClassVar[tuple[str, ...]] = ("note",)
    full_name: str
    note: str
    added: int = 4
    extras: list[str] = msgspec.field(default_factory=list)


def split_name(fields: JsonObject) -> JsonObject:
    return {"full_name": f"{fields['first']} {fields['last']}", "note": fields["note"]}


def test_an_old_topic_is_upcast_to_the_payload_of_today() -> None:
    codec = Codec((Renamed,), {"execution.renamed.v1": (Renamed, split_name)})
    state = (
        b'{"meta":{"at":"2026-01-02T03:04:05Z","cmd":"c","actor":"a"},'
        b'"data":{"first":"Ada","last":"L"},"private":{"note":"n"}}'
    )

    meta, payload = codec.decode("execution.renamed.v1", state)

    assert payload == Renamed("Ada L", "n", 4, [])
    assert meta.at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert codec.topics == {"execution.renamed.v1", "execution.renamed.v2"}


def test_a_public_field_added_behind_the_private_ones_keeps_its_place() -> None:
    codec = Codec((Renamed,))
    payload = Renamed("Ada L", "n", 5, ["x"])
    (state,) = codec.encode([Event(golden.EXECUTION_ID, 1, golden.META, payload)])
    assert json.loads(state)["private"] == {"note": "n"}
    assert codec.decode(Renamed.TOPIC, state)[1] == payload
    old = state.replace(b',"added":5,"extras":["x"]', b"")
    assert codec.decode(Renamed.TOPIC, old)[1] == Renamed("Ada L", "n")


def test_mistakes_in_the_payloads_are_found_at_start() -> None:
    class Wrong(Payload, frozen=True):
        TOPIC: ClassVar[str] = "x.v1"
        PRIVATE: ClassVar[tuple[str, ...]] = ("missing",)

    with pytest.raises(TypeError, match="does not have"):
        Codec((Wrong,))
    with pytest.raises(TypeError, match="share one topic"):
        Codec((Renamed, Renamed))
    with pytest.raises(TypeError, match="share one topic"):
        Codec((Renamed,), {Renamed.TOPIC: (Renamed, split_name)})
    assert not set(UPCASTS) & {payload.TOPIC for payload in PAYLOADS}


def encode_output(value: object) -> bytes:
    payload = Renamed("x", "y")
    payload = msgspec.structs.replace(payload, note=value)
    return Codec((Renamed,)).encode([Event(golden.EXECUTION_ID, 1, golden.META, payload)])[0]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (float("nan"), "not_a_number"),
        ([{"a": float("-inf")}], "not_a_number"),
        ("a\0b", "nul_character"),
        ({"\0": 1}, "nul_character"),
        ("\udfff", "lone_surrogate"),
    ],
)
def test_values_that_would_not_come_back_are_refused(value: object, code: str) -> None:
    with pytest.raises(NotStorable) as refusal:
        encode_output(value)
    assert refusal.value.code == code
    assert refusal.value.pointer.startswith("/note")


@pytest.mark.parametrize("value", [None, [None, None], "null", r"\u0000", {"null": r"a\\u0000"}])
def test_values_that_only_look_like_it_are_stored(value: object) -> None:
    assert json.loads(encode_output(value))["private"]["note"] == value


def test_a_time_without_a_zone_is_refused() -> None:
    meta = Meta(at=datetime(2026, 1, 2), cmd="c", actor="a")  # noqa: DTZ001 - what is refused
    with pytest.raises(ValueError, match="needs a zone"):
        CODEC.encode([Event(golden.EXECUTION_ID, 1, meta, golden.sample_payload(PAYLOADS[1]))])
