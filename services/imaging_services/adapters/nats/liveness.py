"""Asking by core NATS, and knowing within seconds whether whoever took the question is still there.

The side at work says so at intervals, with a subject of its own as the reply subject. The asking side sends empty
messages there: once the other's connection has ended, the server answers them with "no responders". So a death is
noticed at once, however long the work may take; a side that hangs, or a server in between that is gone, is noticed by
its silence.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import TimeoutError as NatsTimeout

from imaging_services.adapters.nats.relay_inbox import Inbox
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded
from imaging_services.domain.relay.messages import H_KIND, ReplyKind

_LOOK = 1.0  # seconds between looks at the other side
_MISSED = 2  # looks one after the other that found nobody


class Exchange:
    """One question and its answers, which come to ``inbox``. ``taken``: seconds in which somebody says that he has
    taken it; ``silence``: seconds without a sign of life that are allowed from then on."""

    def __init__(self, client: Client, subject: str, inbox: Inbox, *, taken: float, silence: float) -> None:
        self._client, self._subject, self._inbox = client, subject, inbox
        self._taken_seconds, self._silence = taken, silence
        self._taken, self._missed = False, 0
        self._worker = ""

    async def ask(self, payload: bytes, headers: dict[str, str]) -> None:
        """Send the question; again, when it was answered that it was not taken. Raises nats-py's errors."""
        self._taken, self._missed, self._worker = False, 0, ""
        await self._client.publish(self._subject, payload, reply=self._inbox.subject, headers=headers)

    async def answer(self) -> Msg:
        """The next answer that is no sign of life. Raises ``BackendUnavailable`` when nobody listens or who took the
        question has gone, ``DeadlineExceeded`` for silence, and nats-py's errors."""
        heard = time.monotonic()
        while True:
            try:
                message = await self._inbox.next(min(_LOOK, self._silence, self._taken_seconds))
            except NatsTimeout:
                self._check(time.monotonic() - heard)
                await self._look()
                continue
            if _nobody(message):
                self._miss()
                continue
            heard, self._taken, self._missed = time.monotonic(), True, 0
            if (message.headers or {}).get(H_KIND) != ReplyKind.WORKING:
                return message
            self._worker = message.reply or self._worker

    def _check(self, silent: float) -> None:
        if silent >= self._silence:
            raise DeadlineExceeded(f"{self._subject}: the far side was silent for {self._silence:g} s")
        if not self._taken and silent >= self._taken_seconds:
            raise DeadlineExceeded(f"{self._subject}: nobody has taken it within {self._taken_seconds:g} s")

    async def _look(self) -> None:
        if self._worker and self._client.is_connected:
            await self._client.publish(self._worker, reply=self._inbox.subject)

    def _miss(self) -> None:
        if not self._taken:
            raise BackendUnavailable(f"nobody listens on {self._subject}")
        self._missed += 1
        if self._missed >= _MISSED:
            raise BackendUnavailable(f"{self._subject}: who had taken it has gone")


def _nobody(message: Msg) -> bool:
    return not message.data and (message.headers or {}).get("Status") == "503"


class SignsOfLife:
    """The side at work. Made by ``open_signs``."""

    def __init__(self, client: Client) -> None:
        self._client, self.subject = client, client.new_inbox()

    @asynccontextmanager
    async def given(self, to: str, every: float, *, after: float = 0) -> AsyncIterator[None]:
        """Tell the inbox ``to`` that work is under way, ``after`` seconds from now and then ``every`` seconds."""

        async def say() -> None:
            await asyncio.sleep(after)
            while True:
                if self._client.is_connected:
                    await self._client.publish(to, reply=self.subject, headers={H_KIND: ReplyKind.WORKING})
                await asyncio.sleep(every)

        task = asyncio.create_task(say())
        try:
            yield
        finally:
            task.cancel()


@asynccontextmanager
async def open_signs(client: Client) -> AsyncIterator[SignsOfLife]:
    """Signs of life of this process, for the length of the block."""
    signs = SignsOfLife(client)
    subscription = await client.subscribe(signs.subject, cb=_looked_at)
    try:
        yield signs
    finally:
        if not client.is_closed:
            await subscription.unsubscribe()


async def _looked_at(_: Msg) -> None:
    """That the message found somebody is all that its sender wants to know."""


class Replies:
    """Inboxes for many questions at a time behind one subscription."""

    def __init__(self, client: Client) -> None:
        self._client, self._prefix = client, client.new_inbox()
        self._open: dict[str, Inbox] = {}
        self._number = 0
        self._subscribing: asyncio.Task[Subscription] | None = None

    @asynccontextmanager
    async def inbox(self) -> AsyncIterator[Inbox]:
        """An inbox for the length of the block. Raises nats-py's errors."""
        await self._subscribe()
        self._number += 1
        inbox = Inbox(self._client, f"{self._prefix}.{self._number}")
        self._open[inbox.subject] = inbox
        try:
            yield inbox
        finally:
            del self._open[inbox.subject]

    async def close(self) -> None:
        """Listen no more."""
        subscribing, self._subscribing = self._subscribing, None
        if subscribing is not None and not self._client.is_closed:
            await (await subscribing).unsubscribe()

    async def _subscribe(self) -> None:
        if self._subscribing is None:
            subscribing = self._client.subscribe(
                f"{self._prefix}.*", cb=self._heard, pending_msgs_limit=-1, pending_bytes_limit=-1
            )
            self._subscribing = asyncio.create_task(subscribing)
        try:
            await asyncio.shield(self._subscribing)
        except Exception:
            self._subscribing = None  # the next one tries again
            raise

    async def _heard(self, message: Msg) -> None:
        if (inbox := self._open.get(message.subject)) is not None:
            await inbox.put(message)


class Room:
    """How much may wait or be at work at a time; what does not fit is to be refused. One that alone is larger fits."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._count = self._bytes = 0

    def take(self, size: int) -> bool:
        """Take room for one of so many bytes; False when there is none."""
        if self._count and (self._count >= self._most or self._bytes + size > self._most_bytes):
            return False
        self._count += 1
        self._bytes += size
        return True

    def give(self, size: int) -> None:
        """Give it back."""
        self._count -= 1
        self._bytes -= size
