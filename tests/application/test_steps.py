"""Steps and the engine: what a failure says about trying again."""

from typing import get_args

import pytest

from application.steps import ERROR_CLASSES, ErrorClass, StepFailure


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_a_failure_is_tried_again_unless_it_is_permanent(error_class: ErrorClass) -> None:
    assert StepFailure("c", "m", error_class=error_class).retryable == (error_class != "permanent")


def test_a_handler_may_decide_otherwise() -> None:
    assert StepFailure("c", "m", error_class="permanent", retryable=True).retryable
    assert not StepFailure("c", "m", error_class="transient", retryable=False).retryable


def test_the_error_classes_are_those_of_the_type() -> None:
    assert get_args(ErrorClass) == ERROR_CLASSES


def test_a_failure_shows_its_message() -> None:
    assert str(StepFailure("c", "what to do")) == "what to do"
