"""What surrounds every request of a public HTTP application: correlation id, admission, access log, metrics."""

import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from prometheus_client import Counter, Gauge, Histogram

from imaging_services.adapters.http.files import FILES, ClientGone

log = structlog.get_logger(__name__)

REQUESTS = Counter("imaging_http_requests_total", "requests answered", ["method", "route", "status"])
SENT = Counter("imaging_http_response_bytes_total", "bytes of response bodies", ["route"])
RECEIVED = Counter("imaging_http_request_bytes_total", "bytes of request bodies", ["route"])
SECONDS = Histogram(
    "imaging_http_request_seconds",
    "time to the end of the answer",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
UNDER_WAY = Gauge("imaging_http_requests_under_way", "requests being answered")

_CORRELATION_HEADERS = (b"x-correlation-id", b"x-request-id")
_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NONE = "none"


class Guard:
    """ASGI middleware, the outermost one.

    At most ``concurrency`` requests are under way (Knative's containerConcurrency; 0 is no limit), others get 503 with
    Retry-After at once. An error of the application that left an answer incomplete is logged here, and the server
    then closes the connection. The access log names method, route template, status, bytes and seconds; neither paths
    nor query strings, which may identify patients.
    """

    def __init__(self, app: Any, *, concurrency: int = 0) -> None:
        self._app, self._concurrency = app, concurrency
        self._under_way = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run as ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        with structlog.contextvars.bound_contextvars(correlation_id=exchange.correlation_id):
            if self._concurrency and self._under_way >= self._concurrency:
                await exchange.refuse()
                return
            self._under_way += 1
            UNDER_WAY.inc()
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except Exception as error:  # noqa: BLE001 - the last one who can log it; the answer has its status already
                exchange.failed(error)
            finally:
                self._under_way -= 1
                UNDER_WAY.dec()
                exchange.account()


class _Exchange:
    """One request and its answer, counted."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._began = time.perf_counter()
        self._status, self._sent, self._received, self._complete = 0, 0, 0, False
        self.correlation_id = _correlation_id(scope["headers"])
        scope.setdefault("state", {})["correlation_id"] = self.correlation_id

    async def receive(self) -> Any:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        return message

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = [*message.get("headers", ()), (b"x-correlation-id", self.correlation_id.encode())]
            message = {**message, "headers": headers}
        elif message["type"] == FILES:
            await self._send(message)
            self._sent += message["length"]
            return
        else:
            self._sent += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self) -> None:
        """503: too many requests are under way."""
        document = {
            "type": "about:blank",
            "title": "Temporarily unavailable",
            "status": 503,
            "detail": "too many requests are under way",
            "correlation_id": self.correlation_id,
        }
        headers = [(b"content-type", b"application/problem+json"), (b"retry-after", b"1"), (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": 503, "headers": headers})
        await self.send({"type": "http.response.body", "body": orjson.dumps(document)})
        self.account()

    def failed(self, error: Exception) -> None:
        """Log what the application let through."""
        if isinstance(error, ClientGone):
            log.info("client went away", route=self._route(), bytes=self._sent)
        elif self._complete:
            log.error("request failed", route=self._route(), exc_info=error)
        else:
            log.error("answer broken off", route=self._route(), bytes=self._sent, exc_info=error)

    def account(self) -> None:
        """Access log and metrics."""
        route, seconds = self._route(), time.perf_counter() - self._began
        status = self._status or 499
        REQUESTS.labels(self._scope["method"], route, status).inc()
        SENT.labels(route).inc(self._sent)
        RECEIVED.labels(route).inc(self._received)
        SECONDS.labels(route).observe(seconds)
        log.info(
            "request",
            method=self._scope["method"],
            route=route,
            status=status,
            bytes=self._sent,
            received=self._received,
            seconds=round(seconds, 4),
            complete=self._complete,
        )

    def _route(self) -> str:
        """The template, not the path: UIDs would make a metric of every instance."""
        route = getattr(self._scope.get("route"), "path", None)
        return f"{self._scope.get('root_path', '')}{route}" if route else _NONE


def _correlation_id(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The caller's id when it is harmless to log and repeat, else a new one."""
    for name, value in headers:
        if name in _CORRELATION_HEADERS:
            text = value.decode("latin-1")
            if _SAFE.fullmatch(text):
                return text
    return uuid.uuid4().hex
