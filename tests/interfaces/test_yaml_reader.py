"""YAML is read as JSON values, within bounds, and every refusal names its line."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.json_values import Json
from interfaces.yaml_reader import YAML_BYTES_MAX, YAML_DEPTH_MAX, BadYaml, read_yaml
from tests.strategies import storable_json


def test_scalars_follow_the_core_schema() -> None:
    text = b"""
hex: 0x1F
octal: 0o17
signed: +3
fraction: -.5
nothing: ~
empty:
truth: True
norway: no
switch: on
time: 12:30
day: 2026-11-20
grouped: 1_000
quoted: "1"
single: '~'
folded: >-
  two
  words
1: number as key
"""
    assert read_yaml(text).value == {
        "hex": 31,
        "octal": 15,
        "signed": 3,
        "fraction": -0.5,
        "nothing": None,
        "empty": None,
        "truth": True,
        "norway": "no",
        "switch": "on",
        "time": "12:30",
        "day": "2026-11-20",
        "grouped": "1_000",
        "quoted": "1",
        "single": "~",
        "folded": "two words",
        "1": "number as key",
    }


def test_every_part_has_its_line() -> None:
    lines = read_yaml(b"name: x\nsteps:\n  a/b:\n    - 1\n    - {k: v}\n").lines
    assert lines == {
        "": 1,
        "/name": 1,
        "/steps": 2,
        "/steps/a~1b": 3,
        "/steps/a~1b/0": 4,
        "/steps/a~1b/1": 5,
        "/steps/a~1b/1/k": 5,
    }


@pytest.mark.parametrize(
    ("text", "code", "line", "pointer"),
    [
        (b"a: &x 1\nb: *x", "alias", 1, "/a"),
        (b"a: 1\nb: *x", "alias", 2, "/b"),
        (b"a: !!python/object/apply:os.system [ls]", "tag", 1, "/a"),
        (b"a:\n  - !custom 1", "tag", 2, "/a/0"),
        (b"!!map {a: 1}", "tag", 1, ""),
        (b"a: 1\n<<: {b: 1}", "merge_key", 2, ""),
        (b"a:\n  b: 1\n  b: 2", "duplicate_key", 3, "/a"),
        (b"? [a]\n: 1", "bad_key", 1, ""),
        (b"? {a: 1}\n: 1", "bad_key", 1, ""),
        (b"--- 1\n--- 2", "many_documents", 2, ""),
        (b"", "empty", 1, ""),
        (b"# only a comment\n", "empty", 1, ""),
        (b"a: 1\nb: 1e400", "not_a_number", 2, "/b"),
        (b"a: .inf", "not_a_number", 1, "/a"),
        (b"a: .NaN", "not_a_number", 1, "/a"),
        (b"a: 9007199254740993", "integer_too_large", 1, "/a"),
        (b"a: " + b"9" * 10_000, "integer_too_large", 1, "/a"),
        (b"a: 0xFFFFFFFFFFFFFFF", "integer_too_large", 1, "/a"),
        (b'a: 1\nb: "\\0"', "nul_character", 2, "/b"),
        (b'a: 1\nb: "\\ud800"', "not_yaml", 2, ""),
        (b"a: 1\nb: \x07", "not_yaml", 2, ""),
        (b"a: 1\nb: \xff", "bad_encoding", 2, ""),
        (b"a: 1\n\tb: 1", "not_yaml", 2, ""),
        (b"a: b: c", "not_yaml", 1, ""),
        (b"a: 'open", "not_yaml", 1, ""),
        (b"%FOO\n---\na: 1", "not_yaml", 1, ""),
        (b"x" * (YAML_BYTES_MAX + 1), "too_large", 1, ""),
        (b"\n".join(b"k%d: 1" % n for n in range(10_001)), "too_many_keys", 1, ""),
    ],
)
def test_refusals_name_the_place(text: bytes, code: str, line: int, pointer: str) -> None:
    with pytest.raises(BadYaml) as refused:
        read_yaml(text)
    assert (refused.value.code, refused.value.line, refused.value.pointer) == (code, line, pointer)
    assert str(refused.value).startswith(f"line {line}, column ")


def test_depth_is_limited() -> None:
    assert read_yaml(b"[" * YAML_DEPTH_MAX + b"]" * YAML_DEPTH_MAX).value
    for deep in (b"[" * (YAML_DEPTH_MAX + 1), b"[" * 100_000, b"- " * 100_000):
        with pytest.raises(BadYaml) as refused:
            read_yaml(deep)
        assert refused.value.code == "too_deep"


@given(storable_json.filter(lambda value: value is not None))
def test_json_is_yaml(value: Json) -> None:
    """JSON with ASCII escapes below the first plane is a subset, so it must read the same."""
    text = json.dumps(value, ensure_ascii=False)
    if all(character.isprintable() for character in text):
        assert read_yaml(text.encode()).value == value


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with suppress(BadYaml):
        read_yaml(text)
