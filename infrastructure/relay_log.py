"""The RelayLog port: the log after the relay's checkpoint, table `relay_checkpoints`.

Reads, lock and checkpoint share a connection: a relay that loses the lead loses what it writes on.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar
from uuid import UUID

from application.relay import CheckpointMoved
from domain.events import Recorded, StepStarted, WorkflowPublished
from domain.json_values import Json, JsonObject
from infrastructure.event_store.codec import Codec
from infrastructure.projections.log_reading import NO_LIMIT, LogReading
from infrastructure.projections.sessions import ProjectionStore, Session
from infrastructure.store_health import StoreThreads

NAME: Final = "kafka"
EVENTS_MAX: Final = 2_000
NAMES_PER_QUERY_MAX: Final = 200
_BEGIN: Final = (
    "INSERT INTO relay_checkpoints (name, position) VALUES (?, ?) ON CONFLICT DO NOTHING"
)
_SELECT: Final = "SELECT position FROM relay_checkpoints WHERE name = ?"
_NAMES: Final = (
    "SELECT execution_run_id, run_id FROM outside_run_ids"
    " WHERE workspace_id = ? AND execution_run_id IN ({places}) ORDER BY run_id DESC"
)
"""Of several names the first one counts, which is read last."""
_MOVE: Final = (
    "UPDATE relay_checkpoints SET position = ? WHERE name = ? AND position = ? RETURNING position"
)

T = TypeVar("T")


class LedgerRelayLog:
    """See RelayLog. `threads` has one thread, which alone uses the store's connections."""

    def __init__(self, store: ProjectionStore, threads: StoreThreads) -> None:
        self._store = store
        self._threads = threads
        self._codec = Codec()

    async def begin(self) -> None:
        """Let the relay start at the present end of the log, if it has not started before.

        Called by every process that is set up for Kafka before it takes work: what came before
        was no business of those who listen there, what comes after must reach them.
        """

        def write(session: Session) -> None:
            head = LogReading(session, self._codec).head()
            session.execute(_BEGIN, (NAME, head))

        if not await self._read(lambda session: session.execute(_SELECT, (NAME,))):
            await self._threads.run(lambda: self._store.write(write))

    async def lead(self) -> bool:
        """See RelayLog."""
        return await self._threads.run(self._store.lead)

    async def position(self) -> int:
        """See RelayLog."""
        rows = await self._read(lambda session: session.execute(_SELECT, (NAME,)))
        if not rows:
            await self.begin()
            return await self.position()
        return int(rows[0][0])

    async def head(self) -> int:
        """See RelayLog."""
        return await self._read(lambda session: LogReading(session, self._codec).head())

    async def after(self, position: int, limit: int) -> Sequence[Recorded]:
        """See RelayLog."""
        found = await self._read(
            lambda session: LogReading(session, self._codec).after(position, limit)
        )
        readable: list[Recorded] = []
        for each in found:
            if not isinstance(each, Recorded):
                if not readable:
                    raise each.error
                break
            readable.append(each)
        return readable

    async def outside_names(self, executions: Collection[tuple[str, UUID]]) -> Mapping[UUID, str]:
        """See RelayLog."""
        found: dict[UUID, str] = {}
        for workspace_id in {each for each, _ in executions}:
            ids = [each for known_in, each in executions if known_in == workspace_id]
            for start in range(0, len(ids), NAMES_PER_QUERY_MAX):
                part = ids[start : start + NAMES_PER_QUERY_MAX]
                found.update(await self._names(workspace_id, part))
        return found

    async def _names(self, workspace_id: str, executions: Sequence[UUID]) -> dict[UUID, str]:
        ours = {f"run-{each}": each for each in executions}
        # Lists of few lengths, so that few statements are prepared.
        places = 1 << (len(ours) - 1).bit_length()
        asked = [*ours, *[next(iter(ours))] * (places - len(ours))]
        statement = _NAMES.format(places=", ".join("?" * places))
        rows = await self._read(lambda session: session.execute(statement, (workspace_id, *asked)))
        return {ours[execution_run_id]: str(run_id) for execution_run_id, run_id in rows}

    async def input_of(self, execution_id: UUID, path: str, attempt: int, try_no: int) -> Json:
        """See RelayLog."""
        version = 0
        while page := await self._page(execution_id, version):
            for recorded in page:
                data = recorded.event.data
                if isinstance(data, StepStarted) and (
                    (data.path, data.attempt, data.try_no) == (path, attempt, try_no)
                ):
                    return data.input
            version = page[-1].event.version
        raise LookupError(f"{execution_id}: nothing says how {path} began")

    async def published(self, workflow: UUID, number: int) -> JsonObject:
        """See RelayLog."""
        version = 0
        while page := await self._page(workflow, version):
            for recorded in page:
                data = recorded.event.data
                if isinstance(data, WorkflowPublished) and data.number == number:
                    return data.source
            version = page[-1].event.version
        raise LookupError(f"workflow {workflow}: nothing says what its version {number} is")

    async def _page(self, stream: UUID, version: int) -> Sequence[Recorded]:
        """The next events of a stream after a version."""
        found = await self._read(
            lambda session: LogReading(session, self._codec).by_stream(
                stream, version, NO_LIMIT, EVENTS_MAX
            )
        )
        page: list[Recorded] = []
        for each in found:
            if not isinstance(each, Recorded):
                raise each.error
            if each.event.execution_id != stream:
                break  # the next stream
            page.append(each)
        return page

    async def move(self, before: int, after: int) -> None:
        """See RelayLog."""
        values = (after, NAME, before)
        moved = await self._threads.run(
            lambda: self._store.write(lambda session: session.execute(_MOVE, values))
        )
        if not moved:
            raise CheckpointMoved(f"the relay's checkpoint does not stand at {before} any more")

    async def close(self) -> None:
        """See RelayLog. Safe to call twice."""
        await asyncio.to_thread(self._threads.close)
        await asyncio.to_thread(self._store.close)

    async def _read(self, read: Callable[[Session], T]) -> T:
        def call() -> T:
            with self._store.reading() as session:
                return read(session)

        return await self._threads.run(call)
