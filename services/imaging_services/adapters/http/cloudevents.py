"""Taking in CloudEvents by HTTP: binary, structured and batched mode, answered when they are handled."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from imaging_services.domain.errors import ImagingError, InvalidInput, answer_for, is_retryable
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.http_binding import decode_http

log = structlog.get_logger(__name__)

MAX_BODY = 64 * 1024 * 1024


def event_router(handle: Callable[[CloudEvent], Awaitable[None]], *, path: str = "/") -> APIRouter:
    """``POST path``: 204 when ``handle`` has returned for every event of the request.

    Otherwise a problem document: 4xx when the sender must not try again, 503 or another 5xx when it should;
    one event of a batch that should be tried again has the whole batch tried again.
    """
    router = APIRouter()

    @router.post(path)
    async def take(request: Request) -> Response:
        try:
            events = decode_http(request.headers, await _body(request))
        except InvalidInput as error:
            return _problem(error)
        results = await asyncio.gather(*map(handle, events), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if not errors:
            return Response(status_code=204)
        return _problem(next(filter(is_retryable, errors), errors[0]))

    return router


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MAX_BODY:
            raise InvalidInput(f"the request is longer than {MAX_BODY} bytes")
    return bytes(body)


def _problem(error: BaseException) -> Response:
    """RFC 9457 problem document. What the error's class makes 5xx although it is for good becomes 422: to a sender
    of events, 5xx means to try again."""
    if isinstance(error, ImagingError):
        log.warning("event refused", error=str(error), kind=type(error).__name__)
    else:
        log.error("event failed", exc_info=error)
    status = answer_for(error).http
    if not is_retryable(error) and status >= 500:
        status = 422
    detail = str(error) if isinstance(error, ImagingError) else f"{type(error).__name__} in the service"
    document = {"title": type(error).__name__, "status": status, "detail": detail}
    return JSONResponse(document, status_code=status, media_type="application/problem+json")
