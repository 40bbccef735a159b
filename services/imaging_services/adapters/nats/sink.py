"""``EventSink`` over NATS: hands an event to the event processor and waits for its answer."""

import asyncio

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
from imaging_services.domain.retries import until_taken

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

        async def attempt(tries: int, left: float) -> None:
            await self.attempt(event, tries, left)

        await until_taken(attempt, self._timeout, event.id)

    async def close(self) -> None:
        """Listen for answers no more; the connection is its owner's."""
        await self._replies.close()

    async def attempt(self, event: CloudEvent, tries: int, timeout: float) -> None:
        """One try of ``send``, after so many others, of at most ``timeout`` seconds."""
        headers, payload = self._message(event)
        taken = _TAKEN[min(tries, len(_TAKEN) - 1)]
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

    def require_room(self, event: CloudEvent) -> None:
        """Raise ``InvalidInput`` for an event that is too large to be published."""
        self._message(event)

    def _message(self, event: CloudEvent) -> tuple[dict[str, str], bytes]:
        headers, payload = encode_nats(event)
        headers = headers | {H_SILENCE: f"{_SILENCE:g}"}
        require_room(self._client, event, headers, payload)
        return headers, payload


def _error(name: str, reply: Msg) -> ImagingError:
    """The error that the processor named; one that we do not know is worth another try."""
    return _tree().get(name, RetryableError)(reply.data.decode(errors="replace"))


def _tree(root: type[ImagingError] = ImagingError) -> dict[str, type[ImagingError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found
