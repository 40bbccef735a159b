"""``EventSink`` over NATS: hands an event to the event processor by request and reply."""

import asyncio
import time

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.ingress import ERROR_HEADER
from imaging_services.adapters.nats.limits import require_room
from imaging_services.domain.errors import ImagingError, RetryableError
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.nats_binding import encode_nats
from imaging_services.domain.events.subjects import EventSubjects

log = structlog.get_logger(__name__)

_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0)  # seconds between tries; the last repeats
_ONE_TRY_SECONDS = 10.0  # a processor that dies with the request in hand never answers


class NatsEventSink:
    """Sends to ``<root>.<stream>.ingress``. Any number of ``send`` at once share the connection.

    While no processor listens, or it answers that it cannot now, an event is tried again within ``timeout``
    seconds: the restart of a processor fails nobody's C-STORE.
    """

    def __init__(self, client: Client, subjects: EventSubjects, *, timeout: float = 30) -> None:
        self._client = client
        self._subject = subjects.ingress
        self._timeout = timeout

    async def send(self, event: CloudEvent) -> None:
        """As the port says. Raises the error that the processor named."""
        deadline = time.monotonic() + self._timeout
        tries = 0
        while True:
            try:
                await self._try(event, min(_ONE_TRY_SECONDS, deadline - time.monotonic()))
            except RetryableError as error:
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
                tries += 1
                if time.monotonic() + pause >= deadline:
                    raise
                log.debug("event is handed in again", id=event.id, tries=tries, error=str(error))
                await asyncio.sleep(pause)
            else:
                return

    async def close(self) -> None:
        """Nothing to give back: the connection is its owner's."""

    async def _try(self, event: CloudEvent, timeout: float) -> None:
        headers, payload = encode_nats(event)
        require_room(self._client, event, headers, payload)
        with nats_errors("handing in an event"):
            reply = await self._client.request(self._subject, payload, timeout=timeout, headers=headers)
        if error_name := (reply.headers or {}).get(ERROR_HEADER):
            raise _error(error_name, reply)


def _error(name: str, reply: Msg) -> ImagingError:
    """The error that the processor named; one that we do not know is worth another try."""
    return _tree().get(name, RetryableError)(reply.data.decode(errors="replace"))


def _tree(root: type[ImagingError] = ImagingError) -> dict[str, type[ImagingError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found
