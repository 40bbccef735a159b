"""``EventSink`` over HTTP: posts CloudEvents in binary mode to ``K_SINK``."""

import asyncio
import time
from pathlib import Path

import orjson
import structlog

from imaging_services.adapters.http.client import HttpOptions, HttpReply, HttpTarget
from imaging_services.adapters.http.errors import error_of
from imaging_services.domain.errors import (
    ImagingError,
    InvalidInput,
    ObjectDeleted,
    Refused,
    RetryableError,
    Superseded,
)
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.http_binding import encode_http

log = structlog.get_logger(__name__)

_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0)  # seconds between tries; the last repeats
_ONE_TRY_SECONDS = 15.0
_CONFLICT = 409
_CONFLICTS = {cls.__name__: cls for cls in (Superseded, ObjectDeleted)}


class HttpEventSink:
    """Any 2xx says that the event is safe. 408, 425, 429, 5xx and failed connections are tried again within
    ``timeout`` seconds; 409 raises ``Conflict`` (``Superseded`` or ``ObjectDeleted`` when the problem document is
    titled so), 404 ``NotFound``, any other 4xx ``InvalidInput``."""

    def __init__(
        self, url: str, *, timeout: float = 30, ca_file: Path | None = None, insecure_skip_verify: bool = False
    ) -> None:
        self._timeout = timeout
        self._target = HttpTarget(
            url,
            HttpOptions(
                ca_file=ca_file,
                insecure_skip_verify=insecure_skip_verify,
                timeout_seconds=min(timeout, _ONE_TRY_SECONDS),
                max_connections=32,
            ),
        )

    async def send(self, event: CloudEvent) -> None:
        """As the port says."""
        headers, body = encode_http(event)
        deadline = time.monotonic() + self._timeout
        tries = 0
        while True:
            try:
                accept = frozenset({_CONFLICT})
                reply = await self._target.request("POST", headers=headers, content=body, accept=accept)
            except Refused as error:
                raise InvalidInput(str(error)) from error
            except RetryableError as error:
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
                tries += 1
                if time.monotonic() + pause >= deadline:
                    raise
                log.debug("event is posted again", id=event.id, tries=tries, error=str(error))
                await asyncio.sleep(pause)
            else:
                if reply.status == _CONFLICT:
                    raise _conflict(reply)
                return

    async def close(self) -> None:
        """Give back connections."""
        await self._target.close()


def _conflict(reply: HttpReply) -> ImagingError:
    try:
        problem = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        problem = None
    kind = _CONFLICTS.get(str(problem.get("title"))) if isinstance(problem, dict) else None
    if isinstance(problem, dict) and kind:
        return kind(str(problem.get("detail", "")))
    return error_of("POST of an event", reply.status, reply.body.decode(errors="replace"))
