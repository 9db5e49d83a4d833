"""Trivial agents of the three kinds, each a program of its own: `http`, `pull` and `kafka`.

Prints one line when it is ready, with its address if it has one. At the end of its standard input
it prints one JSON object: by correlation id, when each task was in its hands (seconds since 1970).
"""

import asyncio
import json
import sys
import threading
import time
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import uvloop
from confluent_kafka import Consumer, Producer
from confluent_kafka import Message as Received

AGENT: Final = "trivial"
OUTPUT: Final = {"uri": "s3://bucket/out.parquet", "rows": 998, "ok": True}
BATCH_MAX: Final = 500
TASKS_MAX: Final = 100
POLLERS: Final = 2
CONNECTIONS: Final = 16
"""On which a pull worker sends its results."""
WAIT_SECONDS: Final = 5

Came = dict[str, float]
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder()


def _ready(address: str = "") -> None:
    sys.stdout.write(f"ready {address}\n")
    sys.stdout.flush()


def _until_told(stopping: threading.Event | None = None) -> None:
    """Until standard input ends."""
    sys.stdin.read()
    if stopping is not None:
        stopping.set()


# --- called over HTTP ---


async def http_agent() -> Came:
    """Answers JSON-RPC `message/send`, on kept-alive connections."""
    server = await asyncio.start_server(_answer_calls, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    _ready(f"http://{host}:{port}")
    await asyncio.to_thread(_until_told)
    server.close()
    return {}


async def _answer_calls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            _, body = await _read(reader)
            part = {"kind": "data", "data": OUTPUT}
            result = {"status": {"state": "completed"}, "artifacts": [{"parts": [part]}]}
            answer = {"jsonrpc": "2.0", "id": _DECODER.decode(body)["id"], "result": result}
            payload = _ENCODER.encode(answer)
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % len(payload)
                + payload
            )
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        writer.close()  # the caller has ended, or this program does


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """First line and body of a request or of an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.lower().startswith(b"content-length:"))
    return lines[0], await reader.readexactly(length)


# --- asks over REST ---


class PullWorker:
    """Polls in batches on some connections, sends results on others."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._done: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._came: Came = {}

    async def work(self) -> Came:
        """Until standard input ends."""
        _ready()
        loops = [self._poll(number) for number in range(POLLERS)]
        loops += [self._complete() for _ in range(CONNECTIONS)]
        tasks = [asyncio.create_task(loop) for loop in loops]
        told = asyncio.create_task(asyncio.to_thread(_until_told))
        await asyncio.wait([told, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()  # raises: it works until it is interrupted
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self._came

    async def _poll(self, number: int) -> None:
        ask = {"agents": [AGENT], "worker_id": f"{AGENT}-{number}"}
        body = _ENCODER.encode({**ask, "max_tasks": TASKS_MAX, "wait_seconds": WAIT_SECONDS})
        reader, writer = await asyncio.open_connection(self._host, self._port)
        while True:
            answer = await self._post(reader, writer, "poll", body)
            now = time.time()
            for task in answer["tasks"]:
                self._came[task["correlation_id"]] = now
                self._done.put_nowait(task)

    async def _complete(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        while True:
            task = await self._done.get()
            body = _ENCODER.encode({"epoch": task["epoch"], "output_data": OUTPUT})
            await self._post(reader, writer, f"{task['task_id']}/complete", body)

    async def _post(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes
    ) -> Any:
        writer.write(
            f"POST /api/v1/tasks/{path} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        line, answer = await _read(reader)
        if line.split()[1] != b"200":
            raise RuntimeError(f"{path}: {line!r} {answer[:500]!r}")
        return _DECODER.decode(answer)


# --- takes from a topic ---


def kafka_agent(brokers: str, group: str, task_topic: str, result_topic: str) -> Came:
    """Takes tasks from a topic; the broker has their results before their offset is committed."""
    common = {"bootstrap.servers": brokers}
    consumer = Consumer(
        {**common, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    )
    producer = Producer({**common, "acks": "all", "enable.idempotence": True, "linger.ms": 1})
    assigned = threading.Event()
    consumer.subscribe([task_topic], on_assign=lambda *_: assigned.set())
    stopping = threading.Event()
    threading.Thread(target=_until_told, args=[stopping], daemon=True).start()
    came: Came = {}
    said = False
    while not stopping.is_set():
        first = consumer.poll(0.1)
        if assigned.is_set() and not said:
            _ready()
            said = True
        if first is None:
            continue
        batch = [first, *consumer.consume(BATCH_MAX, 0)]
        now = time.time()
        for message in batch:
            task = _task(message)
            came[task["correlation_id"]] = now
            producer.produce(result_topic, _result(task), task["correlation_id"])
        producer.flush()
        consumer.commit(asynchronous=True)
    consumer.close()
    return came


def _task(message: Received) -> dict[str, Any]:
    if (error := message.error()) is not None:
        raise RuntimeError(error.str())
    found: dict[str, Any] = _DECODER.decode(message.value() or b"")
    return found


def _result(task: dict[str, Any]) -> bytes:
    names = {name: task[name] for name in ("run_id", "task_id", "correlation_id")}
    return _ENCODER.encode({**names, "status": "SUCCESS", "output_data": OUTPUT})


def main(kind: str, *arguments: str) -> None:
    """Be an agent until standard input ends."""
    if kind == "kafka":
        came = kafka_agent(*arguments)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            came = runner.run(http_agent() if kind == "http" else PullWorker(*arguments).work())
    sys.stdout.write(json.dumps(came))


if __name__ == "__main__":
    main(*sys.argv[1:])
