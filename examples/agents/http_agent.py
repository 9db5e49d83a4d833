"""An agent that Flowledger calls over HTTP; needs nothing but Python.

    python http_agent.py [PORT]

It counts the words of the text that it is sent. The answer to a task is kept by its key, so that a
call which is made again does nothing twice.
"""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BODY_BYTES_MAX = 1_000_000
DONE: dict[str, Any] = {}  # work that has effects keeps this in its database, beside the effect


def count(text: str) -> dict[str, Any]:
    """The work itself."""
    words = text.split()
    return {"words": len(words), "longest": max(words, key=len, default="")}


class Agent(BaseHTTPRequestHandler):
    """Answers JSON-RPC `message/send`, and tells who it is."""

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"] or 0)
        if size > BODY_BYTES_MAX:
            return self.answer(413, {"error": f"at most {BODY_BYTES_MAX} bytes"})
        call, key = json.loads(self.rfile.read(size)), self.headers["Idempotency-Key"]
        text = call["params"]["message"]["parts"][0]["text"]
        if not text.strip():
            error = {"code": -32602, "message": "there is no text to count"}
            return self.answer(200, {"jsonrpc": "2.0", "id": call["id"], "error": error})
        if key not in DONE:
            DONE[key] = {"kind": "data", "data": count(text)}
        result = {"status": {"state": "completed"}, "artifacts": [{"parts": [DONE[key]]}]}
        return self.answer(200, {"jsonrpc": "2.0", "id": call["id"], "result": result})

    def do_GET(self) -> None:  # /.well-known/agent-card.json, for the health check
        self.answer(200, {"name": "counter", "description": "counts words", "version": "1"})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8700), Agent)
    print(f"The agent listens at http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
