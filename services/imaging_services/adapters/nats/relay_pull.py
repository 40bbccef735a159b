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
from imaging_services.domain.errors import BackendUnavailable

_EXPIRES = 30.0  # seconds a pull request lasts
_HEARTBEAT = 5.0  # seconds between signs of life of an idle pull request
_MISSED = 2 * _HEARTBEAT + 1
_LOOK = 1.0  # seconds between looks at the connection while nothing comes
_ENVELOPE = 64 * 1024  # subject, reply and headers of a message, bytes


class Pull:
    """Room for messages of one durable consumer. ``next_subject`` is its ``CONSUMER.MSG.NEXT`` API subject."""

    def __init__(self, client: Client, next_subject: str, max_messages: int, max_bytes: int) -> None:
        self._client, self._next_subject = client, next_subject
        self._largest = client.max_payload + _ENVELOPE
        self._max_messages, self._max_bytes = max_messages, max(max_bytes, 2 * self._largest)
        self._asked_messages = self._asked_bytes = 0
        self._working_messages = self._working_bytes = 0
        self._not_before = 0.0
        self._heard_at, self._reconnects = time.monotonic(), client.stats["reconnects"]
        self._wake = asyncio.Event()

    async def messages(self) -> AsyncIterator[Msg]:
        """Messages as room allows, each to be given back with ``done``. Raises ``BackendUnavailable`` when the
        consumer is gone."""
        async with open_inbox(self._client) as inbox:
            asking = asyncio.create_task(self._ask(inbox.subject))
            self._wake.set()
            try:
                while True:
                    message = await self._next(inbox)
                    if message is not None:
                        self._take(message)
                        yield message
                    elif asking.done():
                        raise BackendUnavailable(f"cannot ask for messages: {asking.exception()}")
            finally:
                asking.cancel()
                await self._give_back(inbox)

    def done(self, message: Msg) -> None:
        """The message is acknowledged or given back: there is room again."""
        self._working_messages -= 1
        self._working_bytes -= size_of(message)
        self._wake.set()

    def pause(self, seconds: float) -> None:
        """Ask for nothing more for so long: the receiver is away, and every try would carry the bytes again."""
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _take(self, message: Msg) -> None:
        size = size_of(message)
        self._asked_messages = max(self._asked_messages - 1, 0)
        self._asked_bytes = max(self._asked_bytes - size, 0)
        self._working_messages += 1
        self._working_bytes += size

    async def _next(self, inbox: Inbox) -> Msg | None:
        try:
            message = await inbox.next(_LOOK)
        except NatsTimeout:
            self._look()
            return None
        self._heard_at = time.monotonic()
        status = (message.headers or {}).get("Status")
        if status is None or message.data or (message.reply or "").startswith("$JS.ACK"):
            return message
        self._on_status(status, message.headers or {})
        return None

    def _look(self) -> None:
        """Neither message nor heartbeat, or a new connection: the requests are lost, so ask again."""
        reconnects = self._client.stats["reconnects"]
        if reconnects != self._reconnects or time.monotonic() > self._heard_at + _MISSED:
            self._reconnects, self._heard_at = reconnects, time.monotonic()
            self._asked_messages = self._asked_bytes = 0
            self._wake.set()

    def _on_status(self, status: str, headers: dict[str, str]) -> None:
        if status == "100":
            return
        description = headers.get("Description", "")
        if status == "503" or (status == "409" and "Deleted" in description):
            raise BackendUnavailable(f"the relay's consumer is gone: {status} {description}")
        # The request has ended with this much of it unused.
        unused = headers.get("Nats-Pending-Messages"), headers.get("Nats-Pending-Bytes")
        self._asked_messages = max(self._asked_messages - int(unused[0]), 0) if unused[0] else 0
        self._asked_bytes = max(self._asked_bytes - int(unused[1]), 0) if unused[1] else 0
        if not self._asked_messages:
            self._asked_bytes = 0
        self._wake.set()

    async def _ask(self, inbox: str) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if (wait := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            messages = self._max_messages - self._working_messages - self._asked_messages
            size = self._max_bytes - self._working_bytes - self._asked_bytes
            if messages < max(1, self._max_messages // 4) and (self._asked_messages or self._working_messages):
                continue
            if messages < 1 or size < self._largest:
                continue
            self._asked_messages += messages
            self._asked_bytes += size
            nanoseconds = {"expires": int(_EXPIRES * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9)}
            request = {"batch": messages, "max_bytes": size, **nanoseconds}
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
