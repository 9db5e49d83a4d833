"""An agent behind HTTP that a fault owns: it answers, or says 503, and counts its calls."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HttpAgent:
    """`calls` has for each call when it came (Unix seconds), its key, and whether it was answered.

    It lives in threads of this process, which is none of the product.
    """

    def __init__(self) -> None:
        self.failing = False
        self.calls: list[tuple[float, str, bool]] = []
        self.address = ""

    def answer(self, call: bytes, key: str) -> tuple[int, bytes]:
        """Status and body for a call of JSON-RPC."""
        failing = self.failing
        self.calls.append((time.time(), key, not failing))
        if failing:
            return 503, b"no"
        told = json.loads(call)
        artifact = {"parts": told["params"]["message"]["parts"]}
        result = {"status": {"state": "completed"}, "artifacts": [artifact]}
        return 200, json.dumps({"jsonrpc": "2.0", "id": told["id"], "result": result}).encode()

    def refused(self) -> int:
        """How many calls were told 503."""
        return sum(not answered for _, _, answered in self.calls)

    def keys(self) -> set[str]:
        """Of all calls: as many as there were tasks."""
        return {key for _, key, _ in self.calls}


class _Handler(BaseHTTPRequestHandler):
    agent: HttpAgent

    def do_POST(self) -> None:
        call = self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.agent.answer(call, self.headers["Idempotency-Key"] or "")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # the calls of many tasks come at one moment


@contextmanager
def http_agent() -> Iterator[HttpAgent]:
    """An agent that listens while the block lasts."""
    agent = HttpAgent()
    handler = type("Handler", (_Handler,), {"agent": agent})
    with _Server(("127.0.0.1", 0), handler) as server:
        agent.address = f"http://127.0.0.1:{server.server_address[1]}"
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield agent
        finally:
            server.shutdown()
            serving.join()
