"""Restate: the handler's process, `restate_handler.py PORT`, in the peers' environment.

A service whose handler runs three durable steps, served by Hypercorn as the SDK's documentation
does, with uvloop and HTTP/2 (both directions of a call at once).
"""

import sys
from typing import Any

import hypercorn.asyncio
import restate
import uvloop
from hypercorn.config import Config
from workload import OUTPUT

bench = restate.Service("Bench")


async def step() -> dict[str, Any]:
    """Does nothing."""
    return OUTPUT


@bench.handler()
async def run(ctx: restate.Context, given: dict[str, Any]) -> dict[str, Any]:
    """Three durable steps."""
    await ctx.run_typed("a", step)
    await ctx.run_typed("b", step)
    return await ctx.run_typed("c", step)


def main() -> None:
    """Serve until ended."""
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.loglevel = "WARNING"
    uvloop.run(hypercorn.asyncio.serve(restate.app(services=[bench]), config))


if __name__ == "__main__":
    main()
