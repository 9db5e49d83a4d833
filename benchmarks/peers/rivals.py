"""Runs one measurement of one peer, each in a process of its own."""

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.harness import Figures, percentile
from benchmarks.http_load import cpu_seconds, post
from benchmarks.peers.environment import PeerEnvironment
from benchmarks.peers.workload import INPUT, OUTPUT

HERE = Path(__file__).parent
START_SECONDS_MAX = 60.0
PARTITIONS = 4
"""Of Restate's log: its default of 24 is for larger machines."""
_LIMIT_SECONDS = 900


def dbos(peers: PeerEnvironment, url: str, executions: int, in_flight: int) -> Figures:
    """DBOS Transact on either back end; on SQLite with a write-ahead log, which is faster."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
    return _run(peers, "dbos_run.py", url, executions, in_flight)


def absurd(peers: PeerEnvironment, url: str, executions: int, in_flight: int) -> Figures:
    """Absurd, on PostgreSQL."""
    return _run(peers, "absurd_run.py", url, executions, in_flight)


def _run(
    peers: PeerEnvironment, program: str, url: str, executions: int, in_flight: int
) -> Figures:
    command = (peers.python, HERE / program, url, str(executions), str(in_flight))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_LIMIT_SECONDS
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program}: {done.stderr[-2_000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


async def restate(peers: PeerEnvironment, executions: int, in_flight: int) -> Figures:
    """Restate's server with a Python handler: from the call to its ingress to the answer."""
    async with _restate(peers) as (ingress, processes):
        wanted = json.dumps(OUTPUT, separators=(",", ":")).encode()
        call = ("127.0.0.1", ingress, "/Bench/run", INPUT)
        await post(*call, 20, 1, wanted=wanted)
        before, started = sum(map(cpu_seconds, processes)), time.perf_counter()
        latencies = await post(*call, executions, in_flight, wanted=wanted)
        took = time.perf_counter() - started
        cpu = sum(map(cpu_seconds, processes)) - before
        return {
            "executions_per_second": len(latencies) / took,
            "p50_ms": percentile(latencies, 0.5),
            "p99_ms": percentile(latencies, 0.99),
            "server_cpu_us_per_execution": cpu / len(latencies) * 1e6,
        }


@asynccontextmanager
async def _restate(peers: PeerEnvironment) -> AsyncIterator[tuple[int, tuple[int, int]]]:
    ingress, admin, node, handler = (_free_port() for _ in range(4))
    # Durable as it comes: the log's fsync is on. Only its telemetry is off.
    settings = {
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "error",
        "RESTATE_DEFAULT_NUM_PARTITIONS": str(PARTITIONS),
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_LISTEN_MODE": "tcp",
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        service = _started(str(peers.python), str(HERE / "restate_handler.py"), str(handler))
        server = _started(
            str(peers.restate_server),
            "--no-logo",
            "--node-name",
            "bench",
            **settings,
            RESTATE_BASE_DIR=folder,
        )
        try:
            await asyncio.to_thread(_register, admin, handler)
            yield ingress, (server.pid, service.pid)
        finally:
            for process in (server, service):
                process.terminate()
            for process in (server, service):
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _started(*command: str, **settings: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _register(admin: int, handler: int) -> None:
    """Tell the server of the handler, as soon as both answer."""
    body = json.dumps({"uri": f"http://127.0.0.1:{handler}"}).encode()
    wanted = urllib.request.Request(
        f"http://127.0.0.1:{admin}/deployments",
        body,
        {"content-type": "application/json"},
    )
    until = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(wanted, timeout=5) as answer:  # noqa: S310 - like above
                answer.read()
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
