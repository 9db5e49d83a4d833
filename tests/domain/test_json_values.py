"""What may be stored: the strict reader and the check agree, and say where a mistake is."""

import json
from collections import OrderedDict
from enum import IntEnum

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.json_values import (
    BODY_BYTES_MAX,
    DEPTH_MAX,
    INTEGER_MAX,
    KEYS_MAX,
    PAYLOAD_BYTES_MAX,
    Json,
    NotStorable,
    canonical_bytes,
    check_storable,
    pointer_join,
    read_json,
    sha256_of,
)
from tests.strategies import storable_json


def refusal_of_body(body: bytes) -> tuple[str, str]:
    with pytest.raises(NotStorable) as caught:
        read_json(body)
    assert caught.value.message
    return caught.value.code, caught.value.pointer


def refusal_of_value(value: object) -> tuple[str, str]:
    with pytest.raises(NotStorable) as caught:
        check_storable(value)
    str(caught.value).encode()
    caught.value.pointer.encode()
    return caught.value.code, caught.value.pointer


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b"", "not_json", ""),
        (b"   ", "not_json", ""),
        (b"{", "not_json", ""),
        (b"[1,]", "not_json", ""),
        (b"{'a': 1}", "not_json", ""),
        (b"[01]", "not_json", ""),
        (b"[+1]", "not_json", ""),
        (b"[.5]", "not_json", ""),
        (b"[1] x", "not_json", ""),
        (b"nul", "not_json", ""),
        (b'["\x01"]', "not_json", ""),
        (b'["\\x41"]', "not_json", ""),
        (b"// a\n1", "not_json", ""),
        (b"\xef\xbb\xbf{}", "bad_encoding", ""),
        (b'"\xff"', "bad_encoding", ""),
        (b'"\xc0\x80"', "bad_encoding", ""),
        (b'"\xed\xa0\x80"', "bad_encoding", ""),
        ('{"a": 1}'.encode("utf-16"), "bad_encoding", ""),
        ('{"a": 1}'.encode("utf-16-le"), "bad_encoding", ""),
        ('{"a": 1}'.encode("utf-32-be"), "bad_encoding", ""),
        (b'{"a": 1, "a": 1}', "duplicate_key", "/a"),
        (b'{"x": [1, {"a/b": 1, "a/b": 2}]}', "duplicate_key", "/x/1/a~1b"),
        (b'{"a": 1, "\\u0061": 2}', "duplicate_key", "/a"),
        (b'{"x": NaN}', "not_a_number", "/x"),
        (b"[Infinity]", "not_a_number", "/0"),
        (b"[1, -Infinity]", "not_a_number", "/1"),
        (b"[1e400]", "not_a_number", "/0"),
        (b"-1e400", "not_a_number", ""),
        (b"[9007199254740993]", "integer_too_large", "/0"),
        (b'{"a": -9007199254740993}', "integer_too_large", "/a"),
        (b"[0, " + b"9" * 5_000 + b"]", "integer_too_large", "/1"),
        (b"-" + b"9" * 5_000, "integer_too_large", ""),
        (b'{"a": "\\u0000"}', "nul_character", "/a"),
        (b'{"\\u0000": 1}', "nul_character", "/\\u0000"),
        (b'["\\ud800"]', "lone_surrogate", "/0"),
        (b'["\\udc00\\ud800"]', "lone_surrogate", "/0"),
        (b'{"\\ud800": 1}', "lone_surrogate", "/\\ud800"),
        (nested(100_000), "too_deep", ""),
        (b'{"a":' * 100_000, "too_deep", ""),
        (nested(DEPTH_MAX + 1), "too_deep", "/0" * DEPTH_MAX),
        (b" " * (BODY_BYTES_MAX + 1), "too_large", ""),
    ],
)
def test_a_bad_body_is_refused_with_its_place(body: bytes, code: str, pointer: str) -> None:
    assert refusal_of_body(body) == (code, pointer)


@pytest.mark.parametrize(
    ("value", "code", "pointer"),
    [
        ((1, 2), "not_a_json_type", ""),
        ({"a": [{1}]}, "not_a_json_type", "/a/0"),
        ({"a": object()}, "not_a_json_type", "/a"),
        ({1: 2}, "not_a_json_type", "/(int)"),
        ([b"x"], "not_a_json_type", "/0"),
        ([type("Text", (str,), {})("x")], "not_a_json_type", "/0"),
        ([IntEnum("Level", "LOW").LOW], "not_a_json_type", "/0"),  # type: ignore[attr-defined]  # made here
        (OrderedDict(a=1), "not_a_json_type", ""),
        ([0, float("nan")], "not_a_number", "/1"),
        (float("inf"), "not_a_number", ""),
        (2**53 + 1, "integer_too_large", ""),
        (["\ud800"], "lone_surrogate", "/0"),
        ({"a\ud800": 1}, "lone_surrogate", "/a\\ud800"),
        ({"a": {"b~/": "\x00"}}, "nul_character", "/a/b~0~1"),
        ("x" * (PAYLOAD_BYTES_MAX - 1), "too_large", ""),
        ("é" * (PAYLOAD_BYTES_MAX // 2), "too_large", ""),
        (["\x01"] * (PAYLOAD_BYTES_MAX // 8), "too_large", ""),
        ([0] * PAYLOAD_BYTES_MAX, "too_large", ""),
    ],
)
def test_a_bad_value_is_refused_with_its_place(value: object, code: str, pointer: str) -> None:
    assert refusal_of_value(value) == (code, pointer)


def test_limits_hold_exactly() -> None:
    assert read_json(nested(DEPTH_MAX))
    assert read_json(b"[9007199254740992, -9007199254740992]") == [INTEGER_MAX, -INTEGER_MAX]
    full: dict[str, int] = {str(number): 0 for number in range(KEYS_MAX)}
    assert check_storable(full) is full
    assert refusal_of_value({**full, "more": 0})[0] == "too_many_keys"
    assert refusal_of_value([full, {"more": 0}]) == ("too_many_keys", "/1")
    assert check_storable("x" * (PAYLOAD_BYTES_MAX - 2))
    assert check_storable(["x"], bytes_max=5)
    assert check_storable([1, 2], bytes_max=5)
    with pytest.raises(NotStorable):
        check_storable(["xy"], bytes_max=5)
    assert read_json(b'"' + b"x" * (BODY_BYTES_MAX - 2) + b'"')


def test_the_same_value_comes_back() -> None:
    value = {"a": [1, 2.5, None, True, "\\u0000 é \U0001f600"]}
    assert check_storable(value) is value


def test_the_pointer_begins_with_the_callers_place() -> None:
    with pytest.raises(NotStorable) as caught:
        check_storable({"a": [float("nan")]}, pointer="/output")
    assert caught.value.pointer == "/output/a/0"


def test_a_value_that_holds_itself_is_too_deep() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert refusal_of_value(loop)[0] == "too_deep"


def test_a_value_that_shares_its_parts_a_million_times_is_too_large() -> None:
    value: list[object] = [1]
    for _ in range(60):
        value = [value] * 10
    assert refusal_of_value(value)[0] == "too_large"


def test_a_long_name_does_not_make_a_long_error() -> None:
    _, pointer = refusal_of_value({"k" * 100_000: float("nan")})
    assert len(pointer) < 300


def test_pointers_are_escaped() -> None:
    assert pointer_join("") == ""
    assert pointer_join("/a", "b/c", 0, "~", "") == "/a/b~1c/0/~0/"


@pytest.mark.parametrize(
    ("value", "spelling", "digest"),
    [
        (
            {"b": 1, "a": [1.0, 1e16, 1e-7, -0.0, "é/\u2028\x1f"], "B": None},
            '{"B":null,"a":[1.0,1e16,1e-7,-0.0,"é/\u2028\\u001f"],"b":1}',
            None,
        ),
        ({}, "{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
    ],
)
def test_the_canonical_spelling_is_pinned(value: Json, spelling: str, digest: str | None) -> None:
    assert canonical_bytes(value) == spelling.encode()
    assert digest in (None, sha256_of(value))


@given(storable_json)
def test_what_is_storable_survives_writing_and_reading(value: Json) -> None:
    assert check_storable(value) is value
    again = read_json(canonical_bytes(value))
    assert again == value
    assert canonical_bytes(again) == canonical_bytes(value)


_PIECES = [
    *("{", "}", "[", "]", ",", ":", " ", '"', '"a"', '"a":1', "\\u0000", '"\\ud800"', "null"),
    *("1", "-", "0", "1e400", "1.5", "NaN", "Infinity", "9" * 20, "tru", "true", "\n", "é", "\x00"),
]


@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(st.sampled_from(_PIECES), max_size=30).map(lambda some: "".join(some).encode()),
        storable_json.map(lambda value: json.dumps(value, indent=1).encode()),
    )
)
@example(b'{"a":{"a":1},"b":[{}]}')
def test_any_body_is_read_as_by_the_library_or_refused(body: bytes) -> None:
    try:
        value = read_json(body)
    except NotStorable:
        return
    assert value == json.loads(body)
    check_storable(value, bytes_max=BODY_BYTES_MAX)


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
        lambda inner: st.one_of(
            st.lists(inner),
            st.tuples(inner),
            st.dictionaries(st.one_of(st.text(), st.integers()), inner),
        ),
        max_leaves=10,
    )
)
def test_any_value_passes_or_is_refused_and_what_passes_can_be_read(value: object) -> None:
    try:
        passed = check_storable(value)
    except NotStorable as error:
        error.pointer.encode()
        return
    assert read_json(canonical_bytes(passed)) == value
