"""Headers that are too long, not visible, repeated, or not what their name promises."""
# ruff: noqa: E501 - an input stays on one line

from tests.interfaces.http.corpus.case import API, EXECUTE, Case

_JSON = (b"content-type", b"application/json")
_SOME = f"{API}/executions/victim"


def _post(name: str, value: bytes) -> Case:
    label = f"{name}: {value[:40]!r}"
    return Case(label, "POST", EXECUTE, b"{}", (_JSON, (name.encode(), value)))


def _twice(name: str, first: bytes, second: bytes) -> Case:
    pair = ((name.encode(), first), (name.encode(), second))
    return Case(f"{name} twice", "POST", EXECUTE, b"{}", (_JSON, *pair))


def _get(url: str, name: str, value: bytes) -> Case:
    return Case(f"{name}: {value[:40]!r}", "GET", url, b"", ((name.encode(), value),))


CASES: tuple[Case, ...] = (
    _post("idempotency-key", b""),
    _post("idempotency-key", b"x" * 256),
    _post("idempotency-key", b"x" * 10_000),
    _post("idempotency-key", b"two words"),
    _post("idempotency-key", b"a\tb"),
    _post("idempotency-key", b"a\x00b"),
    _post("idempotency-key", b"a\x7fb"),
    _post("idempotency-key", "schlüssel".encode()),
    _post("idempotency-key", b"\xff\xfe"),
    _twice("idempotency-key", b"a", b"b"),
    _post("x-actor", b""),
    _post("x-actor", b"   "),
    _post("x-actor", b"x" * 129),
    _post("x-actor", b"a\x00b"),
    _post("x-actor", b"a\nb"),
    _post("x-actor", b"a\x1b[31mb"),
    _post("x-actor", b"\xff\xfe"),
    _post("x-actor", b"\xed\xa0\x80"),
    _post("x-actor", "a\u202eb".encode()),
    _post("x-actor", "a\u2028b".encode()),
    _twice("x-actor", b"a", b"b"),
    _post("x-correlation-id", b""),
    _post("x-correlation-id", b"x" * 129),
    _post("x-correlation-id", b"a b"),
    _post("x-correlation-id", b"a\x00b"),
    _post("x-correlation-id", "ü".encode()),
    _twice("x-correlation-id", b"a", b"b"),
    _post("if-match", b"7"),
    _post("if-match", b'"7'),
    _post("if-match", b'""" OR 1=1'),
    _post("if-match", b'"1", "2"'),
    _post("if-match", b'"' + b"9" * 2_000 + b'"'),
    _post("if-match", b'"a\x00"'),
    _post("prefer", b"wait=soon"),
    _post("prefer", b"wait=-1"),
    _post("prefer", b"wait=1.5"),
    _post("prefer", b"wait=" + b"9" * 400),
    _post("prefer", b"wait=\xb2"),
    _post("prefer", b"wait="),
    _post("content-encoding", b"gzip"),
    _post("content-encoding", b"br"),
    _post("content-encoding", b"gzip, gzip, gzip"),
    _post("content-length", b"99999999999999999999"),
    Case("charset=utf-7", "POST", EXECUTE, b"{}", ((b"content-type", b"application/json; charset=utf-7"),)),
    Case("a type without a subtype", "POST", EXECUTE, b"{}", ((b"content-type", b"json"),)),
    Case("an empty type", "POST", EXECUTE, b"{}", ((b"content-type", b""),)),
    Case("a type with a NUL", "POST", EXECUTE, b"{}", ((b"content-type", b"application/json\x00"),)),
    _get(_SOME, "if-none-match", b"7"),
    _get(_SOME, "if-none-match", b'"7" junk'),
    _get(_SOME, "if-none-match", b'"' + b"9" * 2_000),
    _get(f"{_SOME}/stream", "last-event-id", b"-1"),
    _get(f"{_SOME}/stream", "last-event-id", b"first"),
    _get(f"{_SOME}/stream", "last-event-id", b"9" * 400),
    _get(f"{_SOME}/stream", "last-event-id", b"1; DROP TABLE ledger_events"),
    _get(f"{_SOME}/stream", "last-event-id", b""),
)  # fmt: skip
