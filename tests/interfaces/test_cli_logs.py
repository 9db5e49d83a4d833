"""What log lines show."""

import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from interfaces.cli_logs import set_up_logs


@pytest.fixture(autouse=True)
def former_logs() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_told_without_the_values_of_variables(
    form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    def send(credential: str) -> None:
        assert credential
        raise RuntimeError("the host hung up")

    set_up_logs("info", form)
    try:
        send("hunter" + "2")
    except RuntimeError:
        logging.getLogger("flowledger.test").exception("request_failed")
    told = capsys.readouterr().err
    assert "RuntimeError: the host hung up" in told
    assert "in send" in told
    assert "hunter2" not in told
