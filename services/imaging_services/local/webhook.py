"""A CloudEvents webhook inside ``imaging up --demo``: remembers what was delivered to it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from imaging_services.local.ports import LOOPBACK

_LARGEST_BODY = 16 * 1024 * 1024


class Webhook:
    """Listens while the context is open; thread safe."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((LOOPBACK, 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True)

    @property
    def url(self) -> str:
        """Where to post events."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/"

    def events(self, event_type: str) -> list[Any]:
        """The data of every event of this type so far, in order of arrival."""
        with self._lock:
            return [data for kind, data in self._events if kind == event_type]

    def __enter__(self) -> "Webhook":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            """CloudEvents HTTP binding: binary mode (``ce-`` headers) and structured mode."""

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                if length > _LARGEST_BODY:
                    self.send_error(413)
                    return
                try:
                    body = json.loads(self.rfile.read(length))
                except ValueError:
                    self.send_error(400)
                    return
                webhook._keep(self.headers.get("ce-type"), body)
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the demo itself tells what arrived."""

        return Handler

    def _keep(self, event_type: str | None, body: Any) -> None:
        with self._lock:
            if event_type is not None:
                self._events.append((event_type, body))
            else:
                self._events.append((str(body.get("type")), body.get("data")))
