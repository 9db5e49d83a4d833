"""The actions of `benchmarks/recovery.py`, and when they were called."""

import time
from collections import defaultdict
from typing import NamedTuple

from application.steps import StepContext
from domain.json_values import Json, JsonObject


class Call(NamedTuple):
    """One call of a handler; times are `time.perf_counter`."""

    path: str
    began: float
    ended: float


CALLS: dict[str, list[Call]] = defaultdict(list)
"""By execution id, in order."""


async def work(config: JsonObject, context: StepContext) -> Json:
    """Does nothing; its first try fails where the configuration says so."""
    return _called(context, fails=bool(config["fails"]) and context.try_no == 1)


async def other(config: JsonObject, context: StepContext) -> Json:
    """Does nothing, and never fails."""
    return _called(context, fails=False)


def _called(context: StepContext, *, fails: bool) -> Json:
    began = time.perf_counter()
    CALLS[context.execution_id].append(Call(context.path, began, time.perf_counter()))
    if fails:
        raise ConnectionError("no answer")
    return {"rows": 998, "ok": True}
