"""When a process looks for garbage: not while it loads, and seldom later."""

import gc
from typing import Final

_ALLOCATIONS_BETWEEN: Final = (20_000, 20, 50)


def put_off_collections() -> None:
    """Until `resume_collections`. What modules define stays, and to look for garbage in it again
    and again takes a sixth of the start of a command."""
    gc.disable()


def resume_collections() -> None:
    """End what `put_off_collections` began, if it did."""
    if not gc.isenabled():
        _collect_rarely()


def tune_process() -> None:
    """For a process that only serves: what lives as long as it does is not collected again and
    again."""
    gc.collect()
    _collect_rarely()


def _collect_rarely() -> None:
    """Leave out what there is by now, and look at the rest less often than as a rule (the values of
    the hot path hold no cycles)."""
    gc.freeze()
    gc.set_threshold(*_ALLOCATIONS_BETWEEN)
    gc.enable()
