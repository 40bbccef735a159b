"""Errors as problem documents (RFC 9457): the status of ``answer_for``, one sentence, the correlation id; no traces."""

import re

import orjson
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imaging_services.domain.errors import ImagingError, RetryableError, answer_for

log = structlog.get_logger(__name__)

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
"""What the client sent, such as a value to search for: it may identify a patient and is not logged."""

_TITLES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    410: "Gone",
    413: "Content too large",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    500: "Internal error",
    501: "Not implemented",
    502: "Refused by a backend",
    503: "Temporarily unavailable",
    504: "A backend did not answer in time",
}


def problem(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A problem document."""
    document = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    correlation_id = request.scope.get("state", {}).get("correlation_id")
    if correlation_id:
        document["correlation_id"] = correlation_id
    return Response(orjson.dumps(document), status, headers, "application/problem+json")


class Unforeseen:
    """ASGI middleware, the innermost one: answers what nobody foresaw, so that the others see an answer (a browser
    shows one without CORS headers as no answer at all), and passes the error on to whoever logs it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as ASGI application."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if not started and scope["type"] == "http":
                await (await _unforeseen(Request(scope), error))(scope, receive, send)
            raise


def install_problem_handlers(app: Starlette) -> None:
    """Have every error of the application answered by a problem document."""
    app.add_exception_handler(ImagingError, _imaging_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)


async def _imaging_error(request: Request, error: Exception) -> Response:
    status = answer_for(error).http
    if status >= 500:
        log.warning("request failed", status=status, error=type(error).__name__, reason=str(error))
    else:
        reason = _QUOTED.sub("'…'", str(error))
        log.info("request refused", status=status, error=type(error).__name__, reason=reason)
    headers = {"Retry-After": "2"} if isinstance(error, RetryableError) else None
    return problem(request, status, str(error), headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _unforeseen(request: Request, _error: Exception) -> Response:
    return problem(request, 500, "an unforeseen error; the log has it under the correlation id")
