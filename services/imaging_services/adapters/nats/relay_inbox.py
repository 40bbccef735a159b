"""Messages to an inbox, read one by one.

Not nats-py's ``Subscription.next_msg``: it waits by ``asyncio.wait_for`` in a task of its own, which on Python 3.11
loses a cancellation that comes together with a message, and then whoever was to stop goes on.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import StaleConnectionError
from nats.errors import TimeoutError as NatsTimeout

_LOOK = 0.5  # seconds between looks at the connection


class Inbox:
    """Made by ``open_inbox``. Nothing bounds what may wait here but the protocol of whoever uses it."""

    def __init__(self, client: Client, subject: str) -> None:
        self.subject = subject
        self._client, self._reconnects = client, client.stats["reconnects"]
        self._queue: asyncio.Queue[Msg] = asyncio.Queue()

    async def put(self, message: Msg) -> None:
        """A message has come."""
        self._queue.put_nowait(message)

    async def next(self, timeout: float) -> Msg:
        """The next message. Raises nats-py's ``TimeoutError`` when none comes within ``timeout`` seconds."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        try:
            async with asyncio.timeout(timeout):
                return await self._queue.get()
        except TimeoutError:
            raise NatsTimeout from None

    async def next_here(self, timeout: float) -> Msg:
        """The next message of what the server itself sends, such as acknowledgements, which do not outlive a
        connection. Raises nats-py's ``StaleConnectionError`` soon after the connection was lost."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return await self.next(min(_LOOK, max(deadline - time.monotonic(), 0)))
            except NatsTimeout:
                if self._client.stats["reconnects"] != self._reconnects:
                    raise StaleConnectionError from None
                if time.monotonic() >= deadline:
                    raise

    def waiting(self) -> list[Msg]:
        """Take all that has come and was not read."""
        return [self._queue.get_nowait() for _ in range(self._queue.qsize())]


@asynccontextmanager
async def open_inbox(client: Client) -> AsyncIterator[Inbox]:
    """An inbox of its own, for the length of the block."""
    inbox = Inbox(client, client.new_inbox())
    subscription = await client.subscribe(inbox.subject, cb=inbox.put, pending_msgs_limit=-1, pending_bytes_limit=-1)
    try:
        yield inbox
    finally:
        if not client.is_closed:
            await subscription.unsubscribe()
