"""An agent that answers each task with the text it was sent. Prints its address when it listens."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Agent(BaseHTTPRequestHandler):
    """JSON-RPC `message/send`."""

    def do_POST(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        artifact = {"parts": call["params"]["message"]["parts"]}
        result = {"status": {"state": "completed"}, "artifacts": [artifact]}
        body = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """Many callers may come at once."""

    request_queue_size = 500


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Agent)
    host, port = server.server_address[:2]
    sys.stdout.write(f"An agent at http://{host}:{port}\n")
    sys.stdout.flush()
    server.serve_forever()
