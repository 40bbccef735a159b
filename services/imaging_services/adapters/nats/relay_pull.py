"""Pulling from a durable consumer with many messages in flight, bounded by count and by bytes.

nats-py's ``fetch`` asks for one batch and waits for its end, so a long round trip leaves the link idle between
batches, and it knows no bound in bytes. Here room is asked for again as soon as work is done (as ADR-37's consume).
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout

from imaging_services.adapters.nats.relay_inbox import Inbox, open_inbox
from imaging_services.adapters.nats.relay_room import Lane
from imaging_services.domain.errors import BackendUnavailable, InvalidInput
from imaging_services.domain.relay.messages import H_ENCODING, H_OBJECT, H_SIZE, number

EXPIRES = 30.0
"""Seconds a pull request lasts."""
_HEARTBEAT = 5.0  # seconds between signs of life of an idle pull request
_LOOK = 1.0  # seconds between looks at the connection while nothing comes
ENVELOPE = 64 * 1024
"""Bytes of subject, reply and headers of a message, at most."""


class Pull:
    """Messages of one durable consumer, as room allows. ``next_subject`` is its ``CONSUMER.MSG.NEXT`` API subject;
    ``expires`` are the seconds after which a request that found nothing gives its room back. After ``patience`` seconds
    in which nothing was heard, the consumer counts as gone; None: it is asked for ever.

    Silence has two reasons: the requests are lost, or a slow line is busy with what was asked for. To be asked for the
    same again would only fill it more. So the server is asked for a sign of life, which comes behind all that is on
    the line already: the requests are lost when it comes alone."""

    def __init__(
        self,
        client: Client,
        next_subject: str,
        lane: Lane,
        *,
        expires: float = EXPIRES,
        patience: float | None = None,
    ) -> None:
        self._client, self._lane = client, lane
        self._next_subject = next_subject
        self._info_subject = next_subject.replace(".CONSUMER.MSG.NEXT.", ".CONSUMER.INFO.", 1)
        self._expires, self._heartbeat = expires, min(_HEARTBEAT, expires / 2)
        self._patience = patience
        self._looked_at: float | None = None
        self._heard_at, self._reconnects = time.monotonic(), client.stats["reconnects"]
        self._at_work: dict[int, int] = {}

    async def messages(self) -> AsyncIterator[Msg]:
        """Messages as room allows, each to be given back with ``done``. Raises ``BackendUnavailable`` when the
        consumer is gone."""
        async with open_inbox(self._client) as inbox:
            asking = asyncio.create_task(self._ask(inbox.subject))
            try:
                while True:
                    message = await self._next(inbox)
                    if message is not None:
                        size = size_of(message)
                        self._at_work[id(message)] = at_work = size + _grows(message)
                        self._lane.took(size, at_work, message.metadata.num_pending)
                        yield message
                    elif asking.done():
                        raise BackendUnavailable(f"cannot ask for messages: {asking.exception()}")
            finally:
                asking.cancel()
                self._lane.leave()
                await self._give_back(inbox)

    def done(self, message: Msg) -> None:
        """The message is acknowledged or given back: there is room again."""
        self._lane.done(self._at_work.pop(id(message), 0))

    async def _next(self, inbox: Inbox) -> Msg | None:
        try:
            message = await inbox.next(_LOOK)
        except NatsTimeout:
            await self._look(inbox.subject)
            return None
        status = (message.headers or {}).get("Status")
        if status is None and not (message.reply or "").startswith("$JS.ACK"):
            self._sign_of_life(message)
            return None
        self._heard_at, self._looked_at = time.monotonic(), None
        if status is None or message.data or (message.reply or "").startswith("$JS.ACK"):
            return message
        self._on_status(status, message.headers or {})
        return None

    async def _look(self, inbox: str) -> None:
        """Neither message nor heartbeat, or a new connection, with which the requests are lost."""
        now, reconnects = time.monotonic(), self._client.stats["reconnects"]
        if reconnects != self._reconnects:
            self._reconnects = reconnects
            self._ask_again()
        elif not self._lane.asked.messages:
            self._ask_again()  # there was no room to ask for anything
        elif self._patience is not None and now > self._heard_at + self._patience:
            raise BackendUnavailable("the relay's consumer is silent")
        elif now > (self._looked_at or self._heard_at) + 2 * self._heartbeat + 1:
            self._looked_at = now
            await self._client.publish(self._info_subject, b"", reply=inbox)

    def _sign_of_life(self, message: Msg) -> None:
        error = json.loads(message.data or b"{}").get("error")
        if error:
            raise BackendUnavailable(f"the relay's consumer is gone: {error.get('description')}")
        if self._looked_at is not None:
            self._ask_again()

    def _ask_again(self) -> None:
        self._heard_at, self._looked_at = time.monotonic(), None
        self._lane.lost()

    def _on_status(self, status: str, headers: dict[str, str]) -> None:
        if status == "100":
            return
        description = headers.get("Description", "")
        if status == "503" or (status == "409" and "Deleted" in description):
            raise BackendUnavailable(f"the relay's consumer is gone: {status} {description}")
        # The request has ended with this much of it unused.
        messages, size = headers.get("Nats-Pending-Messages"), headers.get("Nats-Pending-Bytes")
        too_large = status == "409" and "MaxBytes" in description
        self._lane.ended(int(messages) if messages else None, int(size) if size else None, too_large=too_large)

    async def _ask(self, inbox: str) -> None:
        while True:
            grant = await self._lane.grant()
            nanoseconds = {"expires": int(self._expires * 1e9), "idle_heartbeat": int(self._heartbeat * 1e9)}
            request = {"batch": grant.messages, "max_bytes": grant.size, **nanoseconds}
            await self._client.publish(self._next_subject, json.dumps(request).encode(), reply=inbox)

    async def _give_back(self, inbox: Inbox) -> None:
        """Messages that arrived and were not looked at go to somebody else at once."""
        for message in inbox.waiting():
            if not self._client.is_closed and (message.reply or "").startswith("$JS.ACK"):
                await message.nak()


def size_of(message: Msg) -> int:
    """Bytes as the server counts them against ``max_bytes``: subject, reply, headers and payload."""
    headers = sum(len(name) + len(value) + 4 for name, value in (message.headers or {}).items())
    return len(message.subject) + len(message.reply or "") + headers + 12 + len(message.data)


def _grows(message: Msg) -> int:
    """By so many bytes, when its payload is compressed no longer."""
    headers = message.headers or {}
    if H_ENCODING not in headers or H_OBJECT in headers:
        return 0
    try:
        return max(number(headers, H_SIZE) - len(message.data), 0)
    except InvalidInput:
        return 0
