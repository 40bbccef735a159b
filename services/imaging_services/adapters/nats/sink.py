"""``EventSink`` over NATS: hands an event to the event processor and waits for its answer."""

import asyncio
import random
import time

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.ingress import ERROR_HEADER
from imaging_services.adapters.nats.limits import require_room
from imaging_services.adapters.nats.liveness import Exchange, Replies
from imaging_services.domain.errors import DeadlineExceeded, ImagingError, RetryableError
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.nats_binding import encode_nats
from imaging_services.domain.events.subjects import EventSubjects
from imaging_services.domain.relay.messages import H_SILENCE

log = structlog.get_logger(__name__)

_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0)  # seconds between tries; the last repeats
_TAKEN = (1.0, 2.0, 4.0, 8.0)  # seconds in which a processor answers, or says that it has taken the event; by try
_SILENCE = 10.0  # seconds; a processor that dies with the event in hand is noticed at once, one that hangs after these


class NatsEventSink:
    """Sends to ``<root>.<stream>.ingress``. Any number of ``send`` at once share the connection.

    While no processor listens, or it answers that it cannot now, an event is tried again within ``timeout``
    seconds: the restart of a processor fails nobody's C-STORE. Recording is idempotent, so an event may be handed in
    twice.
    """

    def __init__(self, client: Client, subjects: EventSubjects, *, timeout: float = 30) -> None:
        self._client = client
        self._subject = subjects.ingress
        self._timeout = timeout
        self._replies = Replies(client)

    async def send(self, event: CloudEvent) -> None:
        """As the port says. Raises the error that the processor named."""
        deadline = time.monotonic() + self._timeout
        tries = 0
        while True:
            try:
                await self._try(event, _TAKEN[min(tries, len(_TAKEN) - 1)], deadline - time.monotonic())
            except RetryableError as error:
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)] * random.uniform(0.5, 1)  # noqa: S311 - not in step
                tries += 1
                if time.monotonic() + pause >= deadline:
                    raise
                log.debug("event is handed in again", id=event.id, tries=tries, error=str(error))
                await asyncio.sleep(pause)
            else:
                return

    async def close(self) -> None:
        """Listen for answers no more; the connection is its owner's."""
        await self._replies.close()

    async def _try(self, event: CloudEvent, taken: float, timeout: float) -> None:
        headers, payload = encode_nats(event)
        headers = headers | {H_SILENCE: f"{_SILENCE:g}"}
        require_room(self._client, event, headers, payload)
        try:
            with nats_errors("handing in an event"):
                async with asyncio.timeout(timeout), self._replies.inbox() as inbox:
                    exchange = Exchange(self._client, self._subject, inbox, taken=taken, silence=_SILENCE)
                    await exchange.ask(payload, headers)
                    reply = await exchange.answer()
        except TimeoutError:
            raise DeadlineExceeded(f"handing in an event: no answer within {timeout:.0f} s") from None
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
