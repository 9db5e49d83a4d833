"""Own actions which a fault times from outside; see effects.py, which is loaded beside them."""

import asyncio
from typing import Any


class Lost(Exception):
    """The bad end of a race."""


async def end_somehow(config: dict[str, Any], context: Any) -> dict[str, Any]:
    """Ends after `seconds`, well or badly."""
    await asyncio.sleep(config["seconds"])
    if config["fails"]:
        raise Lost("the lot fell on failure")
    return {"waited": config["seconds"]}
