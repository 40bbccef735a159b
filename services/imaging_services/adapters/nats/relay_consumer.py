"""Emptying the work queue: each message goes to the handler, and leaves the queue only when it is safe."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.relay_dead_letters import bury
from imaging_services.adapters.nats.relay_ends import AssociationEnds
from imaging_services.adapters.nats.relay_objects import ObjectBucket
from imaging_services.adapters.nats.relay_order import Version, VersionOrder
from imaging_services.adapters.nats.relay_pull import Pull
from imaging_services.adapters.nats.relay_settings import RelaySettings
from imaging_services.adapters.nats.relay_streams import ensure_relay
from imaging_services.domain.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    InvalidInput,
    RetryableError,
    Superseded,
)
from imaging_services.domain.relay.checked import checked, single
from imaging_services.domain.relay.disposition import failure_of
from imaging_services.domain.relay.messages import H_MESSAGE, StoreMessage
from imaging_services.domain.relay.ports import RelayHandler
from imaging_services.domain.relay.retry import RetryPolicy

log = structlog.get_logger(__name__)


class StoreConsumer:
    """One process's share of the work queue of its own channel."""

    def __init__(self, client: Client, js: JetStreamContext, settings: RelaySettings, handler: RelayHandler) -> None:
        self._client, self._js, self._settings, self._handler = client, js, settings, handler
        self._subjects = settings.receives
        self._bucket = ObjectBucket(js, self._subjects.bucket, settings.silence_seconds)
        self._policy = RetryPolicy(settings.max_tries, timedelta(seconds=settings.outage_seconds))
        self._working: set[asyncio.Task[None]] = set()
        self._away_since: float | None = None
        self._order = VersionOrder()
        self._ends = AssociationEnds(js, self._subjects, handler, lambda: self._away_since is not None)

    async def run(self) -> None:
        """Consume until cancelled; then what is at work is finished, or given back after the drain time."""
        renewing = asyncio.create_task(self._ends.renew())
        try:
            while True:
                try:
                    await self._consume()
                except RetryableError as error:
                    log.warning("relay consumer interrupted", stream=self._subjects.stream, error=str(error))
                    await asyncio.sleep(1)
        finally:
            renewing.cancel()

    async def _consume(self) -> None:
        settings = self._settings
        await ensure_relay(self._js, self._subjects, settings.stream_max_bytes, settings.stream_replicas)
        await self._ensure_consumer()
        next_subject = f"{self._js._prefix}.CONSUMER.MSG.NEXT.{self._subjects.stream}.{self._subjects.worker}"
        pull = Pull(self._client, next_subject, settings.max_in_flight, settings.max_in_flight_bytes)
        messages = pull.messages()
        try:
            with nats_errors("pulling from the relay's stream"):
                async for message in messages:
                    task = asyncio.create_task(self._work(message, pull))
                    self._working.add(task)
                    task.add_done_callback(self._working.discard)
        finally:
            await messages.aclose()  # type: ignore[attr-defined]  # an async generator behind its interface
            await self._drain()

    async def _ensure_consumer(self) -> None:
        wanted = api.ConsumerConfig(
            durable_name=self._subjects.worker,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._settings.ack_wait_seconds,
            max_deliver=-1,
            max_ack_pending=65536,
            max_waiting=512,
        )
        with nats_errors("creating the relay's consumer"):
            await self._js.add_consumer(self._subjects.stream, wanted)  # or update it to these settings

    async def _drain(self) -> None:
        if not self._working:
            return
        _, late = await asyncio.wait(set(self._working), timeout=self._settings.drain_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _work(self, message: Msg, pull: Pull) -> None:
        try:
            async with self._in_progress(message):
                await (self._ends.settle(message) if self._ends.is_end(message) else self._settle(message, pull))
        except asyncio.CancelledError:
            await message.nak()
            raise
        except Exception as error:  # noqa: BLE001 - not acknowledged, so it is delivered again after the ack wait
            log.warning("relayed message left for redelivery", stream=self._subjects.stream, error=repr(error))
        finally:
            pull.done(message)

    async def _settle(self, message: Msg, pull: Pull) -> None:
        try:
            store = StoreMessage.from_headers(message.headers or {})
        except InvalidInput as error:
            await self._failed(message, error, pull)
            return
        instance, order = store.call.command.sop_instance_uid, self._order
        accepted_at = store.accepted_at or message.metadata.timestamp
        store = replace(store, accepted_at=accepted_at)
        version = Version(instance, store.message, accepted_at, store.digest)
        async with order.turn(instance):
            if (wait := order.wait(version)) is not None:
                order.waits(version, wait)
                await message.nak(delay=wait)
                return
            failure = await self._store(message, store, version)
            if failure is None:
                self._away_since = None
                order.stored(version)
                await self._acknowledge(message)
            elif (again_in := await self._failed(message, failure, pull)) is None:
                order.given_up(version)
            else:
                order.failed(version, again_in)

    async def _store(self, message: Msg, store: StoreMessage, version: Version) -> Exception | None:
        if self._order.is_stored(version):
            return None
        if (newer := self._order.newer(version)) is not None:
            return Superseded(f"a version sent at {newer.sent_at:%H:%M:%S}, later than this one, is stored already")
        data = partial(self._bucket.read, store.object_name) if store.object_name else single(message.data)
        try:
            answer = await self._handler.store(store, checked(store, data))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises must not end the consumer
            return error
        return failure_of(answer)

    async def _acknowledge(self, message: Msg) -> None:
        name = (message.headers or {}).get("Imaging-Object")
        if name is None:
            await message.ack()
            return
        # The object may go only when the server knows that nobody will be given its message again.
        with nats_errors("acknowledging a relayed store"):
            await message.ack_sync(timeout=self._settings.ack_wait_seconds)
        await self._bucket.discard(name)

    async def _failed(self, message: Msg, error: Exception, pull: Pull) -> float | None:
        """Give it back or up; the seconds after which it is delivered again, None for a dead letter."""
        metadata = message.metadata
        tries = self._order.tries((message.headers or {}).get(H_MESSAGE, ""), metadata.num_delivered)
        age = datetime.now(UTC) - metadata.timestamp
        delay = self._policy.delay(error, tries, age)
        uid = (message.headers or {}).get("Imaging-SOP-Instance")
        if delay is None:
            await bury(self._js, self._subjects, message, error, tries)
            with nats_errors("taking a dead letter from the relay's stream"):
                await message.ack_sync(timeout=self._settings.ack_wait_seconds)
            log.error("relayed store is a dead letter", sop_instance=uid, tries=tries, error=_sentence(error))
            return None
        if isinstance(error, BackendUnavailable | DeadlineExceeded):
            pull.pause(self._pause())
        log.warning("relayed store failed", sop_instance=uid, tries=tries, again_in=delay, error=_sentence(error))
        await message.nak(delay=delay)
        return delay

    def _pause(self) -> float:
        now = time.monotonic()
        self._away_since = self._away_since or now
        return min(max(now - self._away_since, 0.25), 15)

    @asynccontextmanager
    async def _in_progress(self, message: Msg) -> AsyncIterator[None]:
        async def renew() -> None:
            while True:
                await asyncio.sleep(self._settings.ack_wait_seconds / 3)
                if self._client.is_connected:
                    await message.in_progress()

        task = asyncio.create_task(renew())
        try:
            yield
        finally:
            task.cancel()


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
