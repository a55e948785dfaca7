"""A small private service: `/orders` answers once, `/ticker` sends a line every 50 ms until the connection ends.

example: python examples/orders_service.py 127.77.0.10 8080
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ORDERS = [{"order": 1001, "item": "gate hinge"}, {"order": 1002, "item": "door latch"}]
TICK_SECONDS = 0.05


class OrdersHandler(BaseHTTPRequestHandler):
    """Serve the orders and the ticker; log nothing."""

    def do_GET(self) -> None:
        """Answer `/orders` as JSON, `/ticker` as endless lines of text, anything else with 404."""
        if self.path == "/orders":
            body = json.dumps(ORDERS).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif self.path == "/ticker":
            self.send_response(200)
            self.end_headers()
            tick = 0
            try:
                while True:
                    self.wfile.write(f"tick {tick}\n".encode())
                    tick += 1
                    time.sleep(TICK_SECONDS)
            except OSError:
                return  # the reader has gone, or a cut has ended the flow
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet: the demo's own lines are what people read."""


def main() -> None:
    """Serve on ADDRESS PORT until interrupted."""
    server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), OrdersHandler)
    server.daemon_threads = True
    print(f"serving on {server.server_address[0]}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
