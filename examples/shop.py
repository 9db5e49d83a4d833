"""A small shop service for the example workflow; needs nothing but Python.

    python shop.py [--port 8090]

- `GET /orders` is the data file `orders.csv` as JSON: `{"count", "orders": [{column: text}]}`.
- `POST /settlements` books the day's totals. Like a service that is just starting, it answers 503
  to the first two requests of each Idempotency-Key, then 201; after that the same key gives the
  same settlement again, so a retry never books twice.
- `POST /notifications` receives the signed webhook; `GET /notifications` shows what arrived.

With `SHOP_WEBHOOK_SECRET=whsec_...` it refuses webhooks that were not signed with that secret.
It listens on 127.0.0.1 only and keeps everything in memory.
"""

import argparse
import base64
import csv
import hashlib
import hmac
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DATA_FILE = Path(__file__).with_name("orders.csv")
BODY_BYTES_MAX = 1_000_000
FAILURES_BEFORE_SUCCESS = 2

Answer = tuple[int, dict[str, Any]]


class Shop:
    """What the service remembers; one lock, because requests come in threads."""

    def __init__(self, webhook_secret: str) -> None:
        self._secret = webhook_secret
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._settlements: dict[str, dict[str, Any]] = {}
        self._notifications: list[dict[str, Any]] = []

    def orders(self) -> Answer:
        with DATA_FILE.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return 200, {"count": len(rows), "orders": rows}

    def settle(self, key: str, totals: dict[str, Any]) -> Answer:
        with self._lock:
            self._calls[key] += 1
            if self._calls[key] <= FAILURES_BEFORE_SUCCESS:
                return 503, {"error": "the ledger is starting, please come back"}
            number = f"ST-{7000 + len(self._settlements) + 1}"
            settlement = self._settlements.setdefault(
                key, {"settlement_id": number, "gross_cents": totals.get("gross_cents")}
            )
            return 201, {**settlement, "calls": self._calls[key]}

    def notify(self, headers: dict[str, str], body: bytes) -> Answer:
        if self._secret and not self._is_signed(headers, body):
            return 401, {"error": "the webhook's signature is wrong or missing"}
        with self._lock:
            self._notifications.append(json.loads(body))
            return 200, {"received": len(self._notifications)}

    def notifications(self) -> Answer:
        with self._lock:
            return 200, {"notifications": list(self._notifications)}

    def _is_signed(self, headers: dict[str, str], body: bytes) -> bool:
        """Standard Webhooks: `v1,` and the HMAC-SHA256 of `id.timestamp.body`, in base64."""
        signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
        key = base64.b64decode(self._secret.removeprefix("whsec_"))
        wanted = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        given = headers.get("webhook-signature", "").split()
        return any(hmac.compare_digest(wanted, each) for each in given)


class Handler(BaseHTTPRequestHandler):
    """Reads one request, asks the shop, writes JSON."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def __init__(self, shop: Shop, *connection: Any) -> None:
        self._shop = shop
        super().__init__(*connection)

    def do_GET(self) -> None:
        routes: dict[str, Callable[[], Answer]] = {
            "/orders": self._shop.orders,
            "/notifications": self._shop.notifications,
        }
        self._write(*routes.get(self.path.partition("?")[0], self._unknown)())

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            self._write(413, {"error": f"at most {BODY_BYTES_MAX} bytes, please"})
            return
        body = self.rfile.read(length)
        headers = {name.lower(): text for name, text in self.headers.items()}
        try:
            self._write(*self._post(headers, body))
        except ValueError:
            self._write(422, {"error": "the body is not the JSON object that is expected here"})

    def _post(self, headers: dict[str, str], body: bytes) -> Answer:
        if self.path == "/settlements":
            totals = json.loads(body)
            if not isinstance(totals, dict) or "idempotency-key" not in headers:
                raise ValueError(self.path)
            return self._shop.settle(headers["idempotency-key"], totals)
        if self.path == "/notifications":
            return self._shop.notify(headers, body)
        return self._unknown()

    def _unknown(self) -> Answer:
        return 404, {"error": f"{self.path} is not served here"}

    def _write(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the workflow's history says what was called."""


def main() -> None:
    parser = argparse.ArgumentParser(description="The shop service of the example workflow.")
    parser.add_argument("--port", type=int, default=8090, help="0 takes a free port")
    port = parser.parse_args().port
    shop = Shop(os.environ.get("SHOP_WEBHOOK_SECRET", ""))
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, shop))
    server.daemon_threads = True

    def stop(signal_number: int, frame: object) -> None:
        # shutdown() waits for the loop that this handler interrupts, so another thread calls it.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"The shop service is ready at http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    main()
