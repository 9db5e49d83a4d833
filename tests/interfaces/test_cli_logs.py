"""What log lines show."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from interfaces.cli_logs import set_up_logs


@contextmanager
def logs_as(form: Literal["text", "json"]) -> Iterator[None]:
    """Not a fixture: pytest has handlers of its own for each phase of a test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    set_up_logs("info", form)
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

    with logs_as(form):
        try:
            send("hunter" + "2")
        except RuntimeError:
            logging.getLogger("flowledger.test").exception("request_failed")
    told = capsys.readouterr().err
    assert "RuntimeError: the host hung up" in told
    assert "in send" in told
    assert "hunter2" not in told
