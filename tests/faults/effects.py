"""Own actions of a server that is going to be killed: each tells a file what it did, and when.

Loaded by the server through FLOWLEDGER_ACTIONS; EFFECTS_FILE names the file. A line is one JSON
object, written by one call, so that lines of a killed process are whole.
"""

import asyncio
import json
import os
import threading
from typing import Any

STEP_SECONDS = 0.02


class Shaken(Exception):
    """The failure of a first try."""


def _tell(context: Any, what: str) -> None:
    line = {
        "what": what,
        "execution": context.execution_id,
        "path": context.path,
        "attempt": context.attempt,
        "try": context.try_no,
        "delivery": context.delivery,
        "epoch": context.epoch,
        "key": context.idempotency_key,
    }
    file = os.open(os.environ["EFFECTS_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


async def tick(config: dict[str, Any], context: Any) -> dict[str, Any]:
    """Work of some milliseconds in the event loop."""
    _tell(context, "begin")
    await asyncio.sleep(STEP_SECONDS)
    _tell(context, "end")
    return {"try": context.try_no}


def block(config: dict[str, Any], context: Any) -> dict[str, Any]:
    """Work of some milliseconds in a thread."""
    _tell(context, "begin")
    threading.Event().wait(STEP_SECONDS)
    _tell(context, "end")
    return {"try": context.try_no}


async def shaky(config: dict[str, Any], context: Any) -> dict[str, Any]:
    """Fails at the first try."""
    _tell(context, "begin")
    await asyncio.sleep(STEP_SECONDS)
    if context.try_no == 1:
        raise Shaken("the first try fails")
    _tell(context, "end")
    return {"try": context.try_no}
