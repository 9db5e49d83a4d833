"""Secrets are filled in where the definition names them, and taken out of all that comes back."""

import base64
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.steps import SecretUse, StepFailure
from domain.json_values import JsonObject
from infrastructure.effects.secrets import LENGTH_MIN, MASK, Mask, Secrets, SecretsUnreadable

CANARY = 'p/ä"s+s%w\\ord 9'
USE = SecretUse("/headers/Authorization", "TOKEN")


def test_secrets_come_from_the_environment_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text("# comment\n\nTOKEN = from-file=1\nOTHER=other-value\n")
    file.chmod(0o600)
    environment = {
        "FLOWLEDGER_SECRET_TOKEN": "from-env",
        "FLOWLEDGER_SECRETS_FILE": "x",
        "HOME": "/",
    }
    secrets = Secrets.read(environment, file)
    uses = [SecretUse("/a", "TOKEN"), SecretUse("/b", "OTHER")]
    filled, _ = secrets.fill_in({"a": "${secret.TOKEN}", "b": "<${secret.OTHER}>"}, uses)
    assert filled == {"a": "from-env", "b": "<other-value>"}
    assert Secrets.read({}, file).fill_in({"a": "${secret.TOKEN}"}, uses[:1])[0] == {
        "a": "from-file=1"
    }
    assert "from" not in repr(secrets)


def test_a_json_file_is_read_as_well(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text('{"a.b-c": "json-value"}')
    file.chmod(0o440)
    filled, _ = Secrets.read({}, file).fill_in({"x": "${secret.a.b-c}"}, [SecretUse("/x", "a.b-c")])
    assert filled == {"x": "json-value"}


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("A=1", 0o644, "chmod 600"),
        ("A=1", 0o620, "chmod 600"),
        ("no separator", 0o600, "line 1"),
        ("a b=1", 0o600, "no name"),
        ('{"A": 1}', 0o600, "must be text"),
        ("{", 0o600, "not JSON"),
    ],
)
def test_a_bad_secrets_file_is_named(tmp_path: Path, content: str, mode: int, message: str) -> None:
    file = tmp_path / "secrets"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(SecretsUnreadable, match=message) as caught:
        Secrets.read({}, file)
    assert str(file) in str(caught.value)


def test_a_missing_secrets_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretsUnreadable, match="No such file"):
        Secrets.read({}, tmp_path / "absent")


def test_the_configuration_itself_is_left_alone() -> None:
    config: JsonObject = {"headers": {"Authorization": "Bearer ${secret.TOKEN}"}, "n": [1, "x"]}
    before = json.dumps(config)
    filled, _ = Secrets({"TOKEN": CANARY}).fill_in(config, [USE])
    assert filled == {"headers": {"Authorization": f"Bearer {CANARY}"}, "n": [1, "x"]}
    assert json.dumps(config) == before


def test_a_reference_that_arrived_as_data_stays_text() -> None:
    """Else whoever sends input, or answers a call, could read every secret of the server."""
    config: JsonObject = {
        "headers": {"Authorization": "${secret.TOKEN} ${secret.OTHER}"},
        "body": ["${secret.TOKEN}", {"/headers/Authorization": "${secret.TOKEN}"}],
    }
    filled, _ = Secrets({"TOKEN": CANARY, "OTHER": "other-value"}).fill_in(config, [USE])
    assert filled == config | {"headers": {"Authorization": f"{CANARY} ${{secret.OTHER}}"}}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({}, "secret_missing"),
        ({"TOKEN": ""}, "secret_missing"),
        ({"TOKEN": "12345"}, "secret_too_short"),
    ],
)
def test_a_secret_that_cannot_be_used_fails_the_step(values: dict[str, str], code: str) -> None:
    with pytest.raises(StepFailure, match="'TOKEN'") as caught:
        Secrets(values).fill_in({"headers": {"Authorization": "${secret.TOKEN}"}}, [USE])
    assert (caught.value.code, caught.value.retryable) == (code, False)
    if code == "secret_missing":
        assert "FLOWLEDGER_SECRET_TOKEN" in caught.value.message


def spellings(secret: str, before: str, after: str) -> dict[str, str]:
    """Texts that hold a secret in each encoding, with other text around it before encoding."""
    data = (before + secret + after).encode()
    return {
        "raw": before + secret + after,
        "json": json.dumps(before + secret + after),
        "json-utf8": json.dumps(before + secret + after, ensure_ascii=False),
        "repr": repr(before + secret + after),
        "url": quote(secret, safe=""),
        "url-path": quote(secret),
        "form": quote_plus(secret),
        "base64": base64.b64encode(data).decode(),
        "base64url": base64.urlsafe_b64encode(data).decode(),
        "hex": data.hex(),
        "HEX": data.hex().upper(),
    }


@given(
    secret=st.text(
        st.characters(codec="utf-8", exclude_characters="\0"), min_size=LENGTH_MIN, max_size=30
    ),
    before=st.text("abc:", max_size=4),
    after=st.text("xyz:", max_size=4),
)
def test_no_spelling_of_a_secret_passes_the_mask(secret: str, before: str, after: str) -> None:
    mask = Mask([secret])
    for name, text in spellings(secret, before, after).items():
        assert MASK in mask.text(text), name


def test_the_mask_reaches_keys_lists_and_numbers() -> None:
    masked = Mask(["1234567"]).json({"k1234567": ["a1234567b", 1234567, 12, True, None, 1.5]})
    assert masked == {f"k{MASK}": [f"a{MASK}b", MASK, 12, True, None, 1.5]}


def test_the_mask_of_no_secret_changes_nothing() -> None:
    assert Mask([]).json({"a": ["", "x"]}) == {"a": ["", "x"]}
