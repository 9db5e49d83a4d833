"""Between an event and the bytes that are stored for ever.

A stored state is one JSON text, `{"meta": {...}, "data": {...}, "private": {...}}`; `private` holds
the fields which the payload names in `PRIVATE`. Execution id, version and topic are columns.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import FieldInfo

from domain.events import PAYLOADS, Event, Meta, Payload, Recorded
from domain.json_values import JsonObject, check_storable

Upcast = tuple[type[Payload], Callable[[JsonObject], JsonObject]]
"""The payload of today, and what turns the fields of the old topic into its fields."""

UPCASTS: Final[Mapping[str, Upcast]] = {}
"""Every topic that was released once and is not written any more."""

_NOT_ENCODABLE = (UnicodeEncodeError, OverflowError, RecursionError, TypeError)
_NO_LIMIT = 2**62
_encode_json = msgspec.json.Encoder().encode


class UnknownTopic(Exception):
    """The log holds an event which this release cannot read; nothing may be skipped over it."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"the log holds an event of topic {topic!r}, which this release does not know. "
            "It was written by a newer release: run that one or a later one."
        )
        self.topic = topic


class _Encodable(Struct, frozen=True, gc=False):
    """A state to be stored: the meta data are encoded once for all events of an append."""

    meta: Raw
    data: Struct
    private: Struct


class _Decoded(Struct, frozen=True, gc=False):
    """A state that was read; subclasses say what the parts of one payload type hold."""

    meta: Meta
    data: Struct
    private: Struct


class _Form:
    """How one payload type is taken apart and put together again."""

    def __init__(self, payload: type[Payload]) -> None:
        fields = payload.__struct_fields__
        public = [i for i, name in enumerate(fields) if name not in payload.PRIVATE]
        private = [i for i, name in enumerate(fields) if name in payload.PRIVATE]
        if len(private) != len(payload.PRIVATE):
            raise TypeError(f"{payload.__name__}.PRIVATE names a field which it does not have")
        self.payload = payload
        self.data = _part(payload, "Data", public)
        self.private = _part(payload, "Private", private)
        self.pick_public = _picker(public)
        self.pick_private = _picker(private)
        stored_order = public + private
        self.reorder = (
            None
            if stored_order == sorted(stored_order)
            else _picker([stored_order.index(i) for i in range(len(fields))])
        )
        decoded = msgspec.defstruct(
            f"{payload.__name__}Decoded",
            [("meta", Meta), ("data", self.data), ("private", self.private)],
            bases=(_Decoded,),
            frozen=True,
            gc=False,
        )
        self.read: Callable[[bytes], _Decoded] = msgspec.json.Decoder(decoded).decode  # type: ignore[assignment]  # the type does not carry the base given above

    def build(self, data: Struct, private: Struct) -> Payload:
        values = msgspec.structs.astuple(data) + msgspec.structs.astuple(private)
        if self.reorder is not None:
            values = self.reorder(values)
        return self.payload(*values)


class Codec:
    """Encodes the payloads of today, decodes those and everything that was ever released."""

    def __init__(
        self,
        payloads: Sequence[type[Payload]] = PAYLOADS,
        upcasts: Mapping[str, Upcast] = UPCASTS,
    ) -> None:
        self._forms = {payload: _Form(payload) for payload in payloads}
        self._by_topic = {payload.TOPIC: form for payload, form in self._forms.items()}
        self._upcasts = upcasts
        if len(self._by_topic) != len(payloads) or self._by_topic.keys() & upcasts.keys():
            raise TypeError("two payloads share one topic")

    @property
    def topics(self) -> frozenset[str]:
        """Every topic that can be read."""
        return frozenset(self._by_topic) | frozenset(self._upcasts)

    def encode(self, events: Sequence[Event]) -> list[bytes]:
        """The stored states of the events of one append.

        Raises NotStorable for a value that would come back as another one or not at all (NaN, NUL,
        lone surrogate), ValueError for a time without a zone.
        """
        states = []
        meta = None
        encoded_meta = Raw()
        for event in events:
            if event.meta is not meta:
                meta = event.meta
                encoded_meta = _encode_meta(meta)
            states.append(self._encode_one(event.data, encoded_meta))
        return states

    def decode(self, topic: str, state: bytes) -> tuple[Meta, Payload]:
        """What a stored state says. Raises UnknownTopic, or ValidationError for damaged bytes."""
        form = self._by_topic.get(topic)
        if form is None:
            return self._decode_old(topic, state)
        stored = form.read(state)
        return stored.meta, form.build(stored.data, stored.private)

    def recorded(
        self, position: int, execution_id: UUID, version: int, topic: str, state: bytes
    ) -> Recorded:
        """One row of the log as an event with its place."""
        meta, payload = self.decode(topic, state)
        return Recorded(position, Event(execution_id, version, meta, payload))

    def _encode_one(self, payload: Payload, meta: Raw) -> bytes:
        form = self._forms[type(payload)]
        values = msgspec.structs.astuple(payload)
        stored = _Encodable(
            meta, form.data(*form.pick_public(values)), form.private(*form.pick_private(values))
        )
        try:
            state = _encode_json(stored)
        except _NOT_ENCODABLE:
            _check_values(payload)
            raise
        # The encoder writes NaN as null, and PostgreSQL's jsonb refuses NUL: looked for in the
        # bytes, because a walk through every value would cost more than the encoding.
        if state.count(b"null") > values.count(None) or b"\\u0000" in state:
            _check_values(payload)
        return state

    def _decode_old(self, topic: str, state: bytes) -> tuple[Meta, Payload]:
        upcast = self._upcasts.get(topic)
        if upcast is None:
            raise UnknownTopic(topic)
        payload, translate = upcast
        form = self._forms[payload]
        stored = msgspec.json.decode(state)
        fields = translate({**stored["data"], **stored["private"]})
        return msgspec.convert(stored["meta"], Meta), form.build(
            msgspec.convert(fields, form.data), msgspec.convert(fields, form.private)
        )


def _encode_meta(meta: Meta) -> Raw:
    if meta.at.tzinfo is None:
        raise ValueError(f"the time of an event needs a zone, {meta.at.isoformat()} has none")
    return Raw(_encode_json(meta))


def _check_values(payload: Payload) -> None:
    for name in payload.__struct_fields__:
        value = getattr(payload, name)
        if isinstance(value, str | int | float | dict | list):
            # Sizes were looked at where values come in; a normalised definition has more keys.
            check_storable(value, pointer=f"/{name}", bytes_max=_NO_LIMIT, keys_max=_NO_LIMIT)


def _picker(indices: list[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """A function from a tuple to the tuple of the items at `indices`."""
    if not indices:
        return lambda values: ()
    if indices == list(range(indices[0], indices[-1] + 1)):
        return itemgetter(slice(indices[0], indices[-1] + 1))
    if len(indices) == 1:
        only = indices[0]
        return lambda values: (values[only],)
    return itemgetter(*indices)


def _part(payload: type[Payload], name: str, indices: list[int]) -> type[Struct]:
    fields = msgspec.structs.fields(payload)
    return msgspec.defstruct(
        f"{payload.__name__}{name}", [_field(fields[i]) for i in indices], frozen=True, gc=False
    )


def _field(info: FieldInfo) -> tuple[str, Any] | tuple[str, Any, Any]:
    if info.default_factory is not msgspec.NODEFAULT:
        return info.name, info.type, msgspec.field(default_factory=info.default_factory)
    if info.default is not msgspec.NODEFAULT:
        return info.name, info.type, info.default
    return info.name, info.type
