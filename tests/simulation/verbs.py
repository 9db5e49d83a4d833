"""What callers ask of an execution. A new verb is one function and one line of `VERBS`."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, NamedTuple

from application.callers import Answer, Caller
from domain.execution import ExecutionState
from domain.json_values import Json
from domain.verbs import COMPLETE, SKIP, settled_by
from tests.simulation.process import Process

FROM_A_STEP: Final = "from a step on"
WHERE_IT_FAILED: Final = "where it failed"
"""Reasons of retries."""
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
    reason = FROM_A_STEP if step else WHERE_IT_FAILED
    return lambda process, caller: process.control.retry(caller, identifier, step, reason)


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


def pause(chance: Random, state: ExecutionState) -> Ask | None:
    """For a moment, for longer than anything here takes, or until somebody lets it go on."""
    identifier, seconds = str(state.id), chance.choice((None, 1.0, 600.0))
    return lambda process, caller: process.control.pause(caller, identifier, seconds, "by lot")


def resume(chance: Random, state: ExecutionState) -> Ask | None:
    """Paused or not."""
    identifier = str(state.id)
    return lambda process, caller: process.control.resume(caller, identifier, "by lot")


def skip(chance: Random, state: ExecutionState) -> Ask | None:
    """A step that is live, or any."""
    return _settle(chance, state, SKIP, None)


def complete(chance: Random, state: ExecutionState) -> Ask | None:
    """A step that is live, or any."""
    return _settle(chance, state, COMPLETE, {"ok": True})


def _settle(chance: Random, state: ExecutionState, verb: str, output: Json) -> Ask | None:
    live = [path for path in sorted(state.live) if settled_by(state, path, verb) is not None]
    paths = live if live and chance.random() < 0.9 else sorted(state.steps)
    if not paths:
        return None
    identifier, path = str(state.id), paths[chance.randrange(len(paths))]
    return lambda process, caller: process.control.settle_step(
        caller, identifier, path, verb, "by lot", output
    )


def signal(chance: Random, state: ExecutionState) -> Ask | None:
    """One that a step waits for or not, with what it asks for or not."""
    identifier, name = str(state.id), chance.choice(("paid", "sent"))
    payload = chance.choice(({"ok": True}, {"ok": True}, {"ok": False}, None))
    return lambda process, caller: process.control.signal(caller, identifier, name, payload)


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
    Verb("pause", 2, pause),
    Verb("resume", 3, resume),
    Verb("skip", 2, skip),
    Verb("complete", 2, complete),
    Verb("signal", 6, signal),
)
