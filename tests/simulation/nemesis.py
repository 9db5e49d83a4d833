"""What befalls the processes. A new fault is one function and one line of `BLOWS`."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, NamedTuple, Protocol

from tests.simulation.line import Life, Weather
from tests.simulation.process import LEASE_SECONDS, Process


class Cluster(Protocol):
    """The processes, as whoever harms them sees them."""

    chance: Random
    processes: list[Process]
    projector_life: Life
    weather: Weather
    clock_step: int

    def replace(self, process: Process) -> None:
        """Start another process in the place of one that is gone."""

    def replace_projector(self) -> None:
        """Start another projector, if the one there is dead."""


class Blow(NamedTuple):
    """One kind of fault; `strike` returns when it is over."""

    name: str
    weight: int
    strike: Callable[[Cluster, Process], Awaitable[None]]


async def crash(cluster: Cluster, process: Process) -> None:
    """The process is gone in the middle of whatever it did; another starts later."""
    process.life.die()
    await asyncio.sleep(cluster.chance.random() * 2)
    cluster.replace(process)


async def restart(cluster: Cluster, process: Process) -> None:
    """A clean stop and a new start, as in a deployment."""
    await asyncio.wait([asyncio.ensure_future(process.stop())], timeout=4.0)
    process.life.die()
    cluster.replace(process)


async def pause(cluster: Cluster, process: Process) -> None:
    """It stands still for longer than its leases last, often, and wakes up as a zombie."""
    process.life.pause()
    await asyncio.sleep(cluster.chance.random() * 2 * LEASE_SECONDS)
    process.life.resume()


async def cut(cluster: Cluster, process: Process) -> None:
    """It does not reach the database."""
    process.line.cuts += 1
    await asyncio.sleep(cluster.chance.random() * 1.5 * LEASE_SECONDS)
    process.line.cuts -= 1


async def store_away(cluster: Cluster, process: Process) -> None:
    """Nobody reaches the database."""
    cluster.weather.outages += 1
    await asyncio.sleep(cluster.chance.random() * LEASE_SECONDS)
    cluster.weather.outages -= 1


async def clock_step(cluster: Cluster, process: Process) -> None:
    """The clock of the database is set, forward or back."""
    cluster.clock_step += cluster.chance.randrange(-1_500_000, 1_500_000)


async def projector_crash(cluster: Cluster, process: Process) -> None:
    """The projector is gone; another goes on from the tables."""
    cluster.projector_life.die()
    await asyncio.sleep(cluster.chance.random())
    cluster.replace_projector()


BLOWS: Final = (
    Blow("crash", 3, crash),
    Blow("restart", 1, restart),
    Blow("pause", 3, pause),
    Blow("cut", 3, cut),
    Blow("store away", 2, store_away),
    Blow("clock step", 1, clock_step),
    Blow("projector crash", 1, projector_crash),
)
