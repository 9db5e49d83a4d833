"""What callers ask of an execution. A new verb is one function and one line of `VERBS`."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, NamedTuple

from application.callers import Answer, Caller
from domain.execution import ExecutionState
from tests.simulation.process import Process

Ask = Callable[[Process, Caller], Awaitable[Answer]]
"""The same request, through any process."""


class Verb(NamedTuple):
    """`make` looks at the execution and chooses what to ask; None when there is nothing."""

    name: str
    weight: int
    make: Callable[[Random, ExecutionState], Ask | None]


def cancel(chance: Random, state: ExecutionState) -> Ask | None:
    """Whatever state it is in: it may have ended."""
    identifier = str(state.id)
    return lambda process, caller: process.control.cancel(caller, identifier, "by lot")


def retry(chance: Random, state: ExecutionState) -> Ask | None:
    """From where it failed, or from any step; sometimes too early."""
    if not state.terminal and chance.random() < 0.9:
        return None
    identifier = str(state.id)
    steps = sorted(path for path in state.steps if "/" not in path and "~" not in path)
    step = steps[chance.randrange(len(steps))] if steps and chance.random() < 0.5 else None
    return lambda process, caller: process.control.retry(caller, identifier, step, "by lot")


def answer(chance: Random, state: ExecutionState) -> Ask | None:
    """One of the options, or a text, for any question there is."""
    questions = sorted(state.questions.values(), key=lambda each: each.id)
    if not questions:
        return None
    question = questions[chance.randrange(len(questions))]
    texts = (*question.options, "do not know")
    text = texts[chance.randrange(len(texts))]
    identifier = str(state.id)
    return lambda process, caller: process.control.answer(caller, identifier, question.id, text)


def complete_task(chance: Random, state: ExecutionState) -> Ask | None:
    """Any task, done or not."""
    tasks = sorted(state.tasks)
    if not tasks:
        return None
    task = tasks[chance.randrange(len(tasks))]
    return lambda process, caller: process.control.complete_human_task(caller, task, {"ok": True})


VERBS: Final = (
    Verb("cancel", 3, cancel),
    Verb("retry", 4, retry),
    Verb("answer", 8, answer),
    Verb("complete_task", 12, complete_task),
)
