"""F7: after every kill of PostgreSQL the tables catch up by themselves, and equal the events.

The feed of the projections dies with its connection; it comes back from its checkpoint. In the end
every row is the fold of the log, and a rebuild gives the same tables, byte for byte. The controls
take a row away and change one.
"""

import asyncio
import random
import time
from dataclasses import dataclass

import psycopg

from infrastructure.settings import Settings
from interfaces.bootstrap import rebuild_projection
from tests.faults.inner_callers import InnerCallers, inner_callers
from tests.faults.judging import judge, keep, verified
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.report import Options, Report, main, tell

HELD_SHARE = 4
CAUGHT_UP_SECONDS_MAX = 5.0
REBUILD_SECONDS_MAX = 60.0
PATIENCE_SECONDS = 60.0
TABLES = "SELECT viewname FROM pg_views WHERE schemaname = 'public' ORDER BY viewname"
DAMAGE = {
    "a missing row": "DELETE FROM step_executions_v1 WHERE ctid = (SELECT min(ctid) FROM"
    " step_executions_v1)",
    "a changed row": "UPDATE workflow_runs_v1 SET status = 'FAILED' WHERE ctid = (SELECT min(ctid)"
    " FROM workflow_runs_v1 WHERE status = 'COMPLETED')",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How often is killed, how many stories are told before each kill, by how many callers."""

    kills: int
    stories: int
    callers: int


FULL = Plan(20, 900, 32)
QUICK = Plan(2, 80, 4)


async def run(options: Options, report: Report) -> None:
    """Kill, wait for the tables, compare; rebuild, compare again; damage, and compare once more."""
    plan = QUICK if options.quick else FULL
    async with owned_postgres() as server:
        url = server.create_database()
        async with inner_callers(url, options.folder) as callers:
            lags = await _campaign(server, callers, plan, random.Random(options.seed), report)
            report.now("waiting for what was begun to end")
            report.violations += await callers.ended()
            head = await callers.services.store.log.head()
            report.demand(await _reached(callers, head), "I9: the tables never catch up")
        report.now("judging, and a rebuild")
        log, broken = await judge(url, callers.history)
        report.violations += broken + await _rebuilt(url, report)
        keep(options, "F7", log, callers.history)
        report.figures |= {"events": len(log), "caught_up_seconds_max": round(max(lags), 2)}
        if not options.quick:
            slow = [each for each in lags if each > CAUGHT_UP_SECONDS_MAX]
            report.demand(not slow, f"lag was back to 0 only after {slow} s")
            rebuild = report.figures["rebuild_seconds"]
            report.demand(rebuild <= REBUILD_SECONDS_MAX, f"the rebuild took {rebuild} s")
        for name, damage in DAMAGE.items():
            report.now(f"the control: {name}")
            report.control(name, await _damaged(url, damage))


async def _campaign(
    server: OwnedPostgres,
    callers: InnerCallers,
    plan: Plan,
    chance: random.Random,
    report: Report,
) -> list[float]:
    """Seconds from each return of the server until the tables had all that was stored then."""
    await callers.publish()
    lags = []
    report.bit("kill", 0)
    first = 1
    for number in range(plan.kills):
        stories = iter(range(first, first + plan.stories))
        first += plan.stories
        before = callers.unavailable
        working = asyncio.gather(*(callers.work(stories, HELD_SHARE) for _ in range(plan.callers)))
        await asyncio.sleep(chance.uniform(0.05, 0.2 if plan is QUICK else 1.0))
        await asyncio.to_thread(server.kill)
        await server.revive()
        began = time.monotonic()
        head = await callers.head()
        report.demand(await _reached(callers, head), f"I9: stuck behind position {head}")
        lags.append(time.monotonic() - began)
        await working
        report.bit("kill", callers.unavailable > before)
        tell(f"{number + 1} kills, caught up after {lags[-1]:.2f} s")
    return lags


async def _reached(callers: InnerCallers, position: int) -> bool:
    return await callers.services.reads.wait_for(position, PATIENCE_SECONDS)


async def _rebuilt(url: str, report: Report) -> list[str]:
    """I9: rows of all tables before and after a rebuild."""
    before = _rows(url)
    began = time.monotonic()
    await rebuild_projection(Settings(database_url=url), "all", lambda done, total: None)
    report.figures["rebuild_seconds"] = round(time.monotonic() - began, 1)
    after = _rows(url)
    report.figures["rows"] = sum(map(len, after.values()))
    return [
        f"I9 {name}: a rebuild differs, {sorted(before[name] ^ after[name])[:2]}"
        for name in before
        if before[name] != after[name]
    ]


def _rows(url: str) -> dict[str, set[str]]:
    with psycopg.connect(url) as connection:
        names = [str(row[0]) for row in connection.execute(TABLES)]
        return {
            name: {
                str(row[0]) for row in connection.execute(f"SELECT t::text FROM {name} t".encode())
            }
            for name in names
        }


async def _damaged(url: str, damage: str) -> list[str]:
    """What the comparison finds after some damage, which is repaired by a rebuild."""
    with psycopg.connect(url) as connection:
        done = connection.execute(damage.encode())
        assert done.rowcount == 1, damage
    found = await verified(url)
    await rebuild_projection(Settings(database_url=url), "all", lambda done, total: None)
    return found if not await verified(url) else []


if __name__ == "__main__":
    main("F7", run)
