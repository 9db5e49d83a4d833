"""The client of the HTTP measurements: kept-alive connections, one request at a time on each."""

import asyncio
import json
import os
import time
from pathlib import Path

from domain.json_values import JsonObject


async def post(
    host: str,
    port: int,
    path: str,
    body: JsonObject,
    count: int,
    in_flight: int,
    *,
    wanted: bytes = b"",
) -> list[float]:
    """Latencies in ms of `count` POSTs over `in_flight` kept-alive connections.

    Raises RuntimeError for a status of 300 and more and for a body without `wanted` (spaces apart).
    """
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Prefer: wait=10\r\nContent-Length: {len(payload)}\r\n\r\n"
    ).encode()
    latencies: list[float] = []

    async def client(share: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for _ in range(share):
            started = time.perf_counter()
            writer.write(head + payload)
            answer = await _answer(reader)
            latencies.append((time.perf_counter() - started) * 1000)
            if wanted not in answer.replace(b" ", b""):
                raise RuntimeError(f"not as wanted: {answer[:300]!r}")
        writer.close()

    await asyncio.gather(*(client(count // in_flight) for _ in range(in_flight)))
    return latencies


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    body = await reader.readexactly(length)
    if status >= 300:
        raise RuntimeError(f"{status}: {body[:500]!r}")
    return body


def cpu_seconds(process: int) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_peak_mb(process: int) -> float:
    """The most memory that a process has had resident so far, in MB of 10^6 bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6
