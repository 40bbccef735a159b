"""A small real HTTP server on 127.0.0.1 that remembers what it got: a webhook, and the base of other receivers."""

import contextlib
import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Request:
    """A request as received; header names in lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to answer, after ``delay`` seconds."""

    status: int = 204
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0


class Receiver:
    """Use as a context manager. Replies put into ``script`` are given first, in order, instead of ``answer``'s.

    ``most_at_once`` is the largest number of requests that were being answered at the same time.
    """

    path = "/"

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.script: list[Reply] = []
        self.most_at_once = 0
        self._at_once = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._server = _Server(self)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.path}"

    def answer(self, request: Request) -> Reply:
        """What a request gets when the script is empty."""
        return Reply()

    def handle(self, request: Request) -> Reply:
        with self._changed:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            reply = self.script.pop(0) if self.script else None
            self._changed.notify_all()
        try:
            reply = reply or self.answer(request)
            self._stopping.wait(reply.delay)
            return reply
        finally:
            with self._changed:
                self._at_once -= 1

    def wait_for(self, count: int, seconds: float = 60) -> list[Request]:
        """The requests, once there are ``count``; call it in a thread from asynchronous tests."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, seconds):
                raise AssertionError(f"{len(self.requests)} of {count} requests after {seconds} s")
            return list(self.requests)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()


class Webhook(Receiver):
    """A CloudEvents subscriber; ``events`` lists what came in binary mode, in order of arrival."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """Each event: its ``ce-`` attributes without the prefix, and ``data``."""
        return [
            {name[3:]: value for name, value in request.headers.items() if name.startswith("ce-")}
            | {"data": request.json()}
            for request in list(self.requests)
        ]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no failure of the server."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30
    server: _Server

    def _serve(self) -> None:
        split = urllib.parse.urlsplit(self.path)
        reply = self.server.receiver.handle(
            Request(
                method=self.command,
                path=split.path,
                query=urllib.parse.parse_qs(split.query, keep_blank_values=True),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self._body(),
            )
        )
        with contextlib.suppress(ConnectionError):
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.status not in (204, 304):
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        blocks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            blocks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(blocks)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def wait_until(condition: Any, seconds: float = 60) -> None:
    """Wait until ``condition()`` is true; for conditions that a server thread brings about."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not true after {seconds} s")
        time.sleep(0.02)
