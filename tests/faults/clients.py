"""Callers who repeat a request with its key until they hear something, and note what they heard."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx2

from application.callers import Caller
from domain.json_values import JsonObject
from tests.invariants import Answer

PATIENCE_SECONDS = 120
ACTOR = "tester"
API = "/api/v1"
BUSY = frozenset({429, 503})


@dataclass(slots=True)
class Heard:
    """What callers noticed; `stall_seconds` is the longest time without an answer in between."""

    acknowledged: int = 0
    answers_lost: int = 0
    busy: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    stall_seconds: float = 0.0
    slowest_seconds: float = 0.0
    last_at: float = 0.0

    def note(self, status: int, seconds: float) -> None:
        """One answer."""
        now = time.monotonic()
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        if status in BUSY:
            self.busy += 1
            return
        if self.last_at:
            self.stall_seconds = max(self.stall_seconds, now - self.last_at)
        self.last_at = now


class Clients:
    """Callers of whatever answers at `address()`, which is empty while nobody does."""

    def __init__(self, address: Callable[[], str], timeout_seconds: float = 10.0) -> None:
        self.history: list[Answer] = []
        self.heard = Heard()
        self._address = address
        self._http = httpx2.AsyncClient(
            timeout=timeout_seconds, limits=httpx2.Limits(max_connections=200)
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def call(
        self, verb: str, path: str, key: str | None = None, body: JsonObject | None = None
    ) -> "httpx2.Response":
        """The first answer that is not about the server being away or busy."""
        headers = {"X-Actor": ACTOR} | ({"Idempotency-Key": key} if key else {})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if address := self._address():
                    began = time.monotonic()
                    with suppress(httpx2.TransportError):
                        answer = await self._http.request(
                            verb, f"{address}{API}{path}", json=body, headers=headers
                        )
                        self.heard.note(answer.status_code, time.monotonic() - began)
                        if answer.status_code not in BUSY:
                            return answer
                    self.heard.answers_lost += 1
                await asyncio.sleep(0.05)

    async def get(self, path: str) -> JsonObject:
        """A resource, asked for until the server is there."""
        answer = await self.call("GET", path)
        assert answer.status_code == 200, answer.text
        return as_object(answer.json())

    async def publish(self, definition: JsonObject) -> None:
        """Publish a definition, once."""
        answer = await self.call("POST", "/workflows", f"publish-{definition['name']}", definition)
        assert answer.status_code == 201, answer.text

    async def execute(self, workflow: str, number: int) -> str:
        """Request execution `number`; the same execution however often it is asked for."""
        key = f"execute-{number}"
        body: JsonObject = {"input_data": {"n": number}}
        answer = await self.call("POST", f"/workflows/{workflow}/execute", key, body)
        assert answer.status_code == 202, answer.text
        view = as_object(answer.json())
        identifier, version = str(view["id"]), view["version"]
        assert isinstance(version, int)
        self.history.append(Answer(identifier, UUID(identifier), "done", "execute", version))
        self.heard.acknowledged += 1
        return identifier

    async def cancel(self, identifier: str) -> int:
        """Cancel an execution, if it has not ended; the status of the answer."""
        key = f"cancel-{identifier}"
        caller = Caller(actor=ACTOR, route=f"cancel_execution:{identifier}", idempotency_key=key)
        path = f"/executions/{identifier}/cancel"
        answer = await self.call("POST", path, key, {"reason": "by lot"})
        assert answer.status_code in (200, 409), answer.text
        done = answer.status_code == 200
        version = as_object(answer.json()).get("version") if done else None
        self.history.append(
            Answer(
                str(caller.identity(uuid4())),
                UUID(identifier),
                "done" if done else "refused",
                "cancel",
                version if isinstance(version, int) else None,
            )
        )
        self.heard.acknowledged += done
        return answer.status_code

    async def ended(self, identifier: str) -> JsonObject:
        """The execution once it is over."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                view = await self.get(f"/executions/{identifier}")
                if view["completed_at"]:
                    return view
                await asyncio.sleep(0.05)

    async def projected(self, identifier: str) -> None:
        """Return once the tables have seen the log up to this execution's last event."""
        view = await self.get(f"/executions/{identifier}")
        await self.get(f"/executions?page_size=1&min_position={view['position']}")


def as_object(value: Any) -> JsonObject:
    """A JSON value that must be an object."""
    assert isinstance(value, dict), value
    return value
