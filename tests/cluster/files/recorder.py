"""An HTTP server for tests: says yes to everything and writes each request with a body to its log, a JSON line each."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Recorder(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        line = {"method": self.command, "path": self.path, "headers": headers, "body": json.loads(body)}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        self._answer(201, body)

    do_POST = do_PUT

    def do_GET(self) -> None:
        self._answer(200, b'{"resourceType": "Bundle", "type": "searchset", "total": 0}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/fhir+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


ThreadingHTTPServer(("", 8080), Recorder).serve_forever()
