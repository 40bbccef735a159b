"""Pulling from a durable JetStream consumer: never more messages than there are free hands."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

_EXPIRES = 30.0  # seconds a pull request stays open at the server
_HEARTBEAT = 5.0  # seconds between the server's signs of life while it has nothing to deliver
_LOOK = 0.5  # seconds between looks at the connection while nothing comes
_CONTROL = "100"
_NO_RESPONDERS = "503"
_GONE = ("consumer deleted", "consumer is push based", "bad request")

Take = Callable[[Msg], Awaitable[None]]


class Puller:
    """Keeps as many messages requested as there are free hands, and hands each to ``take`` in a task of its own.

    ``request_subject`` is the consumer's ``CONSUMER.MSG.NEXT`` API subject. Lost requests are made again: after a
    reconnection at once, otherwise (a new leader) when heartbeats are missing.
    """

    def __init__(self, client: Client, request_subject: str, take: Take, concurrency: int) -> None:
        self._client = client
        self._request_subject = request_subject
        self._take = take
        self._concurrency = concurrency
        self._hands = asyncio.Semaphore(concurrency)  # holds even when a lost request turns out not to be
        self._inbox = client.new_inbox()
        self._queue: asyncio.Queue[Msg | None] = asyncio.Queue()  # None: look again, a hand is free or we stop
        self._busy = 0
        self._requested = 0
        self._heard = time.monotonic()
        self._reconnects = client.stats["reconnects"]

    async def run(self, stopping: asyncio.Event) -> None:
        """Pull until ``stopping`` is set or the consumer is gone; returns when every ``take`` has returned."""
        subscription = await self._client.subscribe(self._inbox, cb=self._queue.put)
        try:
            async with asyncio.TaskGroup() as tasks:
                waker = tasks.create_task(self._wake_on(stopping))
                try:
                    await self._pull(stopping, tasks)
                finally:
                    waker.cancel()
                    await self._close(subscription)
        finally:
            await self._give_back()

    async def _pull(self, stopping: asyncio.Event, tasks: asyncio.TaskGroup) -> None:
        while not stopping.is_set():
            await self._request()
            try:
                message = await asyncio.wait_for(self._queue.get(), _LOOK)
            except TimeoutError:
                self._forget_lost_requests()
                continue
            if message is None:
                continue
            self._heard = time.monotonic()
            status = (message.headers or {}).get("Status")
            if status is None:
                self._requested = max(0, self._requested - 1)
                self._busy += 1
                tasks.create_task(self._work(message))
            elif not self._still_there(status, message):
                return

    async def _request(self) -> None:
        wanted = self._concurrency - self._busy - self._requested
        if wanted <= 0 or not self._client.is_connected:
            return
        request = {"batch": wanted, "expires": int(_EXPIRES * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9)}
        self._requested += wanted
        await self._client.publish(self._request_subject, orjson.dumps(request), reply=self._inbox)

    def _forget_lost_requests(self) -> None:
        reconnects = self._client.stats["reconnects"]
        if reconnects != self._reconnects or time.monotonic() - self._heard > 2 * _HEARTBEAT:
            self._requested = 0
            self._heard = time.monotonic()
            self._reconnects = reconnects

    def _still_there(self, status: str, message: Msg) -> bool:
        """Account for a status message; False when the consumer or its stream has gone."""
        headers = message.headers or {}
        if status == _CONTROL:
            return True
        if status == _NO_RESPONDERS or headers.get("Description", "").lower().startswith(_GONE):
            return False
        self._requested = max(0, self._requested - int(headers.get("Nats-Pending-Messages", self._requested)))
        return True

    async def _work(self, message: Msg) -> None:
        try:
            async with self._hands:
                await self._take(message)
        finally:
            self._busy -= 1
            self._queue.put_nowait(None)

    async def _wake_on(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._queue.put_nowait(None)

    async def _close(self, subscription: Subscription) -> None:
        """No more messages: the server drops our requests once nobody listens to their inbox."""
        if not self._client.is_closed:
            await subscription.unsubscribe()

    async def _give_back(self) -> None:
        """Return at once what arrived and was not begun, instead of letting it wait for the ack time to pass."""
        while not self._queue.empty():
            message = self._queue.get_nowait()
            if message is not None and not (message.headers or {}).get("Status") and self._client.is_connected:
                await message.nak()
