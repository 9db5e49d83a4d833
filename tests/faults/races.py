"""F5. An execution is cancelled while it completes or fails: one of them wins, and whoever asks, of
whatever process, gets answers that can have happened one after the other.

Two processes answer (in the quick form one); another works and answers too. Each race is an
execution of one step, which ends well or badly after a random time, and one or two callers who
cancel it at about that time, while others read it. `python -m tests.faults F5`.
"""

import asyncio
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal, NamedTuple
from uuid import UUID, uuid4

from application.callers import Caller as Principal
from domain.events import Cancelled, Completed, Failed, Recorded
from domain.json_values import JsonObject
from domain.lifecycle import TERMINAL
from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.linearizable import Call, linearizable
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.programs import running
from tests.faults.report import SHOWN_MAX, Options, Report, main
from tests.faults.wire import API, Caller, Heard, calling
from tests.invariants import Answer

CLIENTS: Final = 16
STEP_SECONDS: Final = 0.02
SHARE_MIN: Final = 0.05
BUGS: Final = ("conflicts-ignored", "stale-reads")
ENDS: Final = (Cancelled, Completed, Failed)
DEFINITION: Final[JsonObject] = {
    "name": "race",
    "start_step": "only",
    "steps": {
        "only": {
            "action": "end_somehow",
            "config": {
                "seconds": "${workflow.input.seconds}",
                "fails": "${workflow.input.fails}",
            },
        }
    },
}


class Place(NamedTuple):
    """What the model remembers of an execution: the newest status and version that anyone saw."""

    status: str
    version: int


@dataclass(slots=True)
class Race:
    """One execution: what callers asked and heard."""

    number: int
    fails: bool
    id: str = ""
    calls: list[Call[Place]] = field(default_factory=list)
    history: list[Answer] = field(default_factory=list)
    end: str = ""


class Aim:
    """When to cancel so that each side wins often: a little later after each win, else sooner."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._later = 0.0

    def seconds(self) -> float:
        """How long to wait after the execution was taken."""
        return max(0.0, self._later + self._chance.uniform(0, 1.5 * STEP_SECONDS))

    def learn(self, end: str) -> None:
        """Take in who won."""
        self._later += 0.0005 if end == "CANCELLED" else -0.0005
        self._later = min(max(self._later, -STEP_SECONDS), 0.5)


# --- the model: one register that ends once ---


def ended_by_itself(asked: float, end: str) -> Call[Place]:
    """The engine's own part, at any time after the request."""

    def take(state: Place) -> Sequence[Place]:
        return () if state.status in TERMINAL else (Place(end, state.version),)

    return Call(f"engine: {end}", asked, inf, take)


def seen(heard: Heard) -> Call[Place]:
    """A read: newer than what was seen before, and open or ended as it was."""
    body = heard.json()
    found = Place(str(body["status"]), int(body["version"]))

    def take(state: Place) -> Sequence[Place]:
        if found.version < state.version or (found.status in TERMINAL) != (
            state.status in TERMINAL
        ):
            return ()
        if state.status in TERMINAL and state.status != found.status:
            return ()
        return (found,)

    return Call(f"read: {found}", heard.asked, heard.answered, take)


def cancelled(heard: Heard) -> Call[Place]:
    """A cancel with its answer: 200 when it wins or has won before, 409 after another end."""
    if heard.status == 409:
        told = str(heard.json()["current_status"])

        def take(state: Place) -> Sequence[Place]:
            return (state,) if state.status == told and told != "CANCELLED" else ()

        return Call(f"cancel: 409, {told}", heard.asked, heard.answered, take)
    found = Place("CANCELLED", int(heard.json()["version"]))

    def win(state: Place) -> Sequence[Place]:
        if state.status == "CANCELLED":
            return (found,) if found.version >= state.version else ()
        won = state.status not in TERMINAL and found.version > state.version
        return (found,) if won else ()

    return Call(f"cancel: {found}", heard.asked, heard.answered, win)


def _gave_up(heard: Heard) -> bool:
    """Refused because others wrote first every time, which says nothing of the end."""
    return heard.status == 409 and "current_status" not in heard.json()


# --- the races ---


class Field:
    """Callers, the processes they call, and what became of every race."""

    def __init__(
        self, apis: Sequence[Caller], chance: random.Random, *, patience: float = 60.0
    ) -> None:
        """`patience` is for how many seconds an end is looked for."""
        self.races: list[Race] = []
        self.undecided = 0
        self._apis = apis
        self._chance = chance
        self._patience = patience
        self._aims = {False: Aim(chance), True: Aim(chance)}

    async def run(self, count: int, clients: int = CLIENTS) -> None:
        """Run `count` races, `clients` at a time."""
        numbers = itertools.count()

        async def client() -> None:
            while (number := next(numbers)) < count:
                self.races.append(await self._race(number))

        await asyncio.gather(*(client() for _ in range(clients)))

    async def _race(self, number: int) -> Race:
        race = Race(number, fails=number % 2 == 1)
        seconds = self._chance.uniform(0, STEP_SECONDS)
        body: JsonObject = {"input_data": {"seconds": seconds, "fails": race.fails}}
        asked = time.monotonic()
        taken = (await self._until_taken(body, f"race-{number}")).json()
        race.id = str(taken["id"])
        race.history.append(
            Answer(race.id, UUID(race.id), "done", "execute", int(taken["version"]))
        )
        race.calls.append(ended_by_itself(asked, "FAILED" if race.fails else "COMPLETED"))
        aim = self._aims[race.fails]
        pause = aim.seconds()
        callers = 1 + (number % 4 == 0)
        reading = asyncio.create_task(self._read(race, pause * self._chance.random()))
        self._note(
            race,
            await asyncio.gather(
                *(self._cancel(race, f"{number}-{each}", pause) for each in range(callers))
            ),
        )
        await reading
        await self._read(race, 0.0)
        race.end = await self._end_of(race)
        aim.learn(race.end)
        return race

    async def _until_taken(self, body: JsonObject, key: str) -> Heard:
        """The answer to a request, repeated with its key until there is one."""
        until = time.monotonic() + 60
        while True:
            heard = await self._any().post(f"{API}/workflows/race/execute", body, key)
            if heard.status == 202:
                return heard
            assert heard.status in (0, 503), heard
            assert time.monotonic() < until, heard
            await asyncio.sleep(0.05)

    async def _cancel(self, race: Race, name: str, pause: float) -> tuple[str, Heard]:
        await asyncio.sleep(pause)
        key, route = f"cancel-{name}", f"cancel_execution:{race.id}"
        path = f"{API}/executions/{race.id}/cancel"
        heard = await self._any().post(path, {"reason": "a race"}, key)
        principal = Principal(actor="tester", route=route, idempotency_key=key)
        return str(principal.identity(uuid4())), heard

    def _note(self, race: Race, cancels: Sequence[tuple[str, Heard]]) -> None:
        """Who of two that were told 200 wrote it is not to be seen from outside."""
        winners = sum(heard.status == 200 for _, heard in cancels)
        for command, heard in cancels:
            outcome: Literal["done", "refused", "unknown"] = "unknown"
            if heard.status == 409:
                outcome = "refused"
            elif heard.status == 200 and winners == 1:
                outcome = "done"
            race.history.append(Answer(command, UUID(race.id), outcome, "cancel"))
            if heard.status in (200, 409) and not _gave_up(heard):
                race.calls.append(cancelled(heard))
            else:
                self.undecided += 1

    async def _read(self, race: Race, pause: float) -> None:
        await asyncio.sleep(pause)
        heard = await self._any().get(f"{API}/executions/{race.id}")
        if heard.status == 200:
            race.calls.append(seen(heard))
        else:
            self.undecided += 1

    async def _end_of(self, race: Race) -> str:
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            heard = await self._any().get(f"{API}/executions/{race.id}")
            if heard.status == 200 and (status := str(heard.json()["status"])) in TERMINAL:
                return status
            await asyncio.sleep(0.02)
        return "never"

    def _any(self) -> Caller:
        return self._chance.choice(self._apis)


# --- the fault ---


async def run(options: Options, report: Report) -> None:
    """20,000 races, or 150."""
    count = 150 if options.quick else 20_000
    async with owned_postgres() as postgres:
        field, broken = await _raced(postgres, options, report, "races", count)
        report.violations += broken
        _count(report, field)
        shorter = 48 if options.quick else 1_000
        for bug in BUGS[: 1 if options.quick else None]:
            _, broken = await _raced(postgres, options, report, bug, shorter, bug)
            report.control(bug, broken)


async def _raced(
    postgres: OwnedPostgres,
    options: Options,
    report: Report,
    name: str,
    count: int,
    bug: str = "",
) -> tuple[Field, list[str]]:
    url = await asyncio.to_thread(postgres.create_database, prepared)
    folder = options.place(name)
    fleet = Fleet(url, folder, bug=bug)
    apis = [fleet.api(), fleet.server(), *([] if options.quick else [fleet.api("another")])]
    async with running(*apis):
        async with AsyncExitStack() as stack:
            callers = [await stack.enter_async_context(calling(each.address)) for each in apis]
            published = await callers[0].post(f"{API}/workflows", DEFINITION, "publish")
            assert published.status == 201, published
            # Where a bug makes readers miss the end, it is not worth waiting for.
            patience = 0.2 if bug else 60.0
            field = Field(callers, random.Random(options.seed), patience=patience)
            report.now(lambda: f"{name}: {len(field.races)} of {count} races")
            await field.run(count)
            last = await callers[0].get(f"{API}/executions/{field.races[-1].id}")
            await callers[0].get(
                f"{API}/executions?page_size=1&min_position={last.json()['position']}"
            )
        report.now(f"{name}: judging")
        history = [answer for race in field.races for answer in race.history]
        log, broken = await judge(url, history)
    keep(options, f"F5-{name}", log, history)
    return field, [*out_of_order(field.races), *two_winners(field.races, log), *broken]


def out_of_order(races: Sequence[Race]) -> list[str]:
    """I6: answers that cannot have been given one after the other."""
    return [
        f"I6 {race.id} ended {race.end}: {'; '.join(call.name for call in race.calls)}"
        for race in races
        if not linearizable(race.calls, Place("PENDING", 0))
    ][:SHOWN_MAX]


def two_winners(races: Sequence[Race], log: Sequence[Recorded]) -> list[str]:
    """I6: ends by the log: one for each race, and that which callers saw."""
    ends: defaultdict[str, list[str]] = defaultdict(list)
    for each in log:
        if isinstance(each.event.data, ENDS):
            ends[str(each.event.execution_id)].append(type(each.event.data).__name__.upper())
    return [
        f"I6 {race.id} was seen {race.end} and is {ends[race.id]}"
        for race in races
        if ends[race.id] != [race.end]
    ][:SHOWN_MAX]


def _count(report: Report, field: Field) -> None:
    """Each side must have won often, or there was no race."""
    for fails, other in ((False, "COMPLETED"), (True, "FAILED")):
        won = Counter(race.end for race in field.races if race.fails == fails)
        report.figures[f"cancel against {other.lower()}"] = dict(won)
        for end in ("CANCELLED", other):
            share = won[end] / max(1, won.total())
            report.bit(f"{end.lower()} against {other.lower()}", int(share >= SHARE_MIN) * won[end])
    report.figures |= {"races": len(field.races), "undecided": field.undecided}


if __name__ == "__main__":
    main("F5", run)
