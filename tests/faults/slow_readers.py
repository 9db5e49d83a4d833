"""F15. Thousands follow executions, and some of them never read: each costs the server a bounded
amount of memory, commands go on, and whoever reads gets the whole log in order (I14).

`python -m tests.faults F15`: 2,000 streams, as many as a process takes, 200 of which are not read.
"""

import asyncio
import random
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from domain.events import Recorded
from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.programs import Program, running
from tests.faults.report import SHOWN_MAX, Options, Report, main
from tests.faults.wire import API, Caller, calling, read_head
from tests.faults.workload import WORKFLOW, definition
from tests.invariants import Answer

STREAM_BYTES_MAX: Final = 200_000
SLOWER_MAX: Final = 2.0
PAYLOAD: Final = "x" * 100_000
"""Input of the executions that nobody reads: more than the kernel buffers for a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many read, and how many do not; a quick run asserts no times and no memory."""

    readers: int
    silent: int
    readers_of_one: int
    commands: int
    wait_ms: int
    measured: bool


QUICK: Final = Plan(
    readers=40, silent=6, readers_of_one=5, commands=20, wait_ms=3_000, measured=False
)
FULL: Final = Plan(
    readers=1_800, silent=200, readers_of_one=20, commands=300, wait_ms=60_000, measured=True
)
"""Commands are measured while all streams are open: in the wait of their executions."""


@dataclass(slots=True)
class Reader:
    """One who follows an execution; cut from time to time, and then goes on where he was."""

    execution: str
    cuts: int
    versions: list[int] = field(default_factory=list)
    ended: bool = False

    async def follow(self, address: str, *, resume: bool = True) -> None:
        """Read to the terminal event, with some cuts in between."""
        cuts = self.cuts
        while not self.ended:
            after = self.versions[-1] if self.versions and resume else 0
            with suppress(OSError, EOFError):
                await self._once(address, after, events_max=3 if cuts else 0)
            cuts = max(0, cuts - 1)

    async def _once(self, address: str, after: int, events_max: int) -> None:
        parts = urlsplit(address)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
        try:
            writer.write(
                f"GET {API}/executions/{self.execution}/stream HTTP/1.1\r\nHost: x\r\n"
                f"Last-Event-ID: {after}\r\n\r\n".encode()
            )
            status, _ = await read_head(reader)
            if status != 200:
                await asyncio.sleep(0.2)
                return
            seen = 0
            while not self.ended and (not events_max or seen < events_max):
                seen += await self._line(reader)
        finally:
            writer.close()

    async def _line(self, reader: asyncio.StreamReader) -> int:
        line = (await reader.readuntil(b"\n")).decode().strip()
        name, _, value = line.partition(": ")
        if name == "id":
            self.versions.append(int(value))
            return 1
        self.ended = self.ended or (name == "event" and value == "end")
        return 0


class Silent:
    """One who asks for a stream and never reads a byte of it."""

    def __init__(self, address: str, execution: str) -> None:
        parts = urlsplit(address)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect((parts.hostname, parts.port))
        request = f"GET {API}/executions/{execution}/stream HTTP/1.1\r\nHost: x\r\n\r\n"
        self._socket.sendall(request.encode())

    def close(self) -> None:
        """Leave."""
        self._socket.close()


async def run(options: Options, report: Report) -> None:
    """The crowd of readers; the control are readers who begin anew after a cut."""
    plan = QUICK if options.quick else FULL
    async with owned_postgres() as postgres:
        report.violations += await _followed(postgres, options, report, plan)


async def _followed(
    postgres: OwnedPostgres, options: Options, report: Report, plan: Plan
) -> list[str]:
    url = await asyncio.to_thread(postgres.create_database, prepared)
    folder = options.place("streams")
    fleet = Fleet(url, folder)
    server = fleet.server()
    chance = random.Random(options.seed)
    history: list[Answer] = []
    async with running(server), calling(server.address) as caller:
        published = await caller.post(f"{API}/workflows", definition(6, plan.wait_ms), "publish")
        assert published.status == 201, published
        report.now("commands before")
        base = await _commands(caller, plan.commands, "before", history)
        memory = server.memory_bytes()
        followed = [
            await _execute(caller, f"followed-{each}", history)
            for each in range(plan.readers // plan.readers_of_one)
        ]
        readers = [
            Reader(followed[each % len(followed)], cuts=chance.randrange(3))
            for each in range(plan.readers)
        ]
        careless = [Reader(followed[0], cuts=2) for _ in range(3)]
        following = [asyncio.create_task(each.follow(server.address)) for each in readers]
        following += [
            asyncio.create_task(each.follow(server.address, resume=False)) for each in careless
        ]
        report.now(
            lambda: f"{sum(each.ended for each in readers)} of {len(readers)} streams have ended"
        )
        silent = await _silent(server, caller, plan.silent, history)
        report.bit("streams that nobody reads", len(silent))
        opening = await _commands(caller, plan.commands, "opening", history)
        if plan.measured:
            await _quiet(readers)
        loaded = await _commands(caller, plan.commands, "meanwhile", history)
        open_streams = sum(not each.ended for each in readers)
        grown = server.memory_peak_bytes() - memory
        await asyncio.gather(*following)
        for each in silent:
            each.close()
        await _all_ended(caller, history)
        report.now("judging")
        log, broken = await judge(url, history, effects=fleet.effects)
    keep(options, "F15", log, history)
    report.bit("streams cut and resumed", sum(each.cuts for each in readers))
    report.figures |= {
        "streams": len(readers),
        "bytes_per_stream": round(grown / (len(readers) + len(silent))),
        "streams_open_at_the_end_of_the_commands": open_streams,
        "command_p99_before": _p99(base),
        "command_p99_while_streams_open": _p99(opening),
        "command_p99_meanwhile": _p99(loaded),
        "events_heard": sum(len(each.versions) for each in readers),
    }
    report.control("begin anew after a cut", other_than_the_log(careless, log))
    return [
        *other_than_the_log(readers, log),
        *(_too_much(report) if plan.measured else ()),
        *broken,
    ]


def other_than_the_log(readers: Sequence[Reader], log: Sequence[Recorded]) -> list[str]:
    """I14: a stream with its resumes is the log of that execution, no hole, no repeat."""
    versions: dict[str, list[int]] = {}
    for each in log:
        versions.setdefault(str(each.event.execution_id), []).append(each.event.version)
    return [
        f"I14 {each.execution}: heard {each.versions}, the log has {versions[each.execution]}"
        for each in readers
        if each.versions != versions[each.execution]
    ][:SHOWN_MAX]


def _too_much(report: Report) -> list[str]:
    figures, found = report.figures, []
    if figures["bytes_per_stream"] > STREAM_BYTES_MAX:
        found.append(f"a stream costs {figures['bytes_per_stream']} bytes")
    if figures["streams_open_at_the_end_of_the_commands"] < figures["streams"]:
        found.append("void: streams had ended before the commands were measured")
    before, meanwhile = figures["command_p99_before"], figures["command_p99_meanwhile"]
    if meanwhile > SLOWER_MAX * before:
        found.append(f"p99 of commands went from {before} s to {meanwhile} s")
    return found


async def _silent(
    server: Program, caller: Caller, count: int, history: list[Answer]
) -> list[Silent]:
    """Streams of executions with more to say than a connection buffers."""
    execution = await _execute(caller, "silent", history, PAYLOAD)
    return [await asyncio.to_thread(Silent, server.address, execution) for _ in range(count)]


async def _quiet(readers: Sequence[Reader]) -> None:
    """Return once all are connected and have heard what there is to hear."""
    before = -1
    while before < (heard := sum(len(each.versions) for each in readers)):
        before = heard
        await asyncio.sleep(2.0)


async def _commands(caller: Caller, count: int, name: str, history: list[Answer]) -> list[float]:
    """Seconds that each of `count` requests took, one after the other."""
    took = []
    for number in range(count):
        began = time.monotonic()
        await _execute(caller, f"{name}-{number}", history)
        took.append(time.monotonic() - began)
    return took


async def _execute(caller: Caller, key: str, history: list[Answer], text: str = "") -> str:
    path = f"{API}/workflows/{WORKFLOW}/execute"
    heard = await caller.post(path, {"input_data": {"text": text}}, key)
    assert heard.status == 202, heard
    view = heard.json()
    known = str(view["id"])
    history.append(Answer(known, UUID(known), "done", "execute", int(view["version"])))
    return known


async def _all_ended(caller: Caller, history: Sequence[Answer]) -> None:
    position = 0
    for answer in history:
        while True:
            view = (await caller.get(f"{API}/executions/{answer.execution_id}")).json()
            if view["completed_at"]:
                position = max(position, int(view["position"]))
                break
            await asyncio.sleep(0.05)
    await caller.get(f"{API}/executions?page_size=1&min_position={position}")


def _p99(seconds: Sequence[float]) -> float:
    return round(sorted(seconds)[int(len(seconds) * 0.99)], 4)


if __name__ == "__main__":
    main("F15", run)
