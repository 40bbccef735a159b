"""Emptying a work queue: each message goes to the handler, and leaves the queue only when it is safe."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.relay_compression import content
from imaging_services.adapters.nats.relay_dead_letters import bury
from imaging_services.adapters.nats.relay_depth import Depth
from imaging_services.adapters.nats.relay_ends import AssociationEnds
from imaging_services.adapters.nats.relay_order import Version
from imaging_services.adapters.nats.relay_places import RelayPlace
from imaging_services.adapters.nats.relay_pull import EXPIRES, Pull
from imaging_services.adapters.nats.relay_receiving import Receiving
from imaging_services.adapters.nats.relay_streams import ensure_relay
from imaging_services.domain.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    InvalidInput,
    RetryableError,
    Superseded,
)
from imaging_services.domain.relay.disposition import failure_of
from imaging_services.domain.relay.messages import H_MESSAGE, H_OBJECT, H_SOP_INSTANCE, StoreMessage
from imaging_services.domain.relay.ports import DataSource

log = structlog.get_logger(__name__)

_WORK_QUEUE_TAKEN = {10099, 10100}  # a consumer of another name takes the same messages
_EXPIRES_FAR = 6.0  # seconds after which a domain that has nothing gives its room to others
_LIVE = 1.0  # seconds in which a receiver at work asks for messages or is given some
_SILENCE_FAR = 60.0  # seconds without a word, until a domain counts as away: a slow line may be full
_PAUSES = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 5.0)  # seconds between tries of a domain that is away; the last repeats


class StoreConsumer:
    """One process's share of one work queue: the ``urgent`` stores of a domain, or the others and the ends of
    associations."""

    def __init__(self, place: RelayPlace, receiving: Receiving, ends: AssociationEnds, *, urgent: bool) -> None:
        self._place, self._receiving, self._ends, self._urgent = place, receiving, ends, urgent
        self._client, self._settings = receiving.client, receiving.settings
        self._stream = place.subjects.urgent_stream if urgent else place.subjects.stream
        self._working: set[asyncio.Task[None]] = set()
        self._draining = False
        self._failures = 0

    async def run(self) -> None:
        """Consume until cancelled; then what is at work is finished, or given back after the drain time."""
        while True:
            try:
                await self._consume()
            except RetryableError as error:
                say = log.warning if self._failures == 0 else log.debug
                say("relay consumer interrupted", stream=self._stream, domain=self._place.domain, error=str(error))
            pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
            self._failures += 1
            await asyncio.sleep(pause)

    async def _consume(self) -> None:
        settings, place, far = self._settings, self._place, self._place.domain is not None
        if not far:
            # In another domain they are their sender's affair, with its limits.
            await ensure_relay(place.js, place.subjects, settings.stream_max_bytes, settings.stream_replicas)
        await self._ensure_consumer()
        self._failures, self._draining = 0, False
        pull = Pull(
            self._client,
            f"{place.js._prefix}.CONSUMER.MSG.NEXT.{self._stream}.{place.worker}",
            self._receiving.lane(place.domain, urgent=self._urgent),
            expires=_EXPIRES_FAR if far else EXPIRES,
            patience=_SILENCE_FAR if far else None,
        )
        depth = Depth(place, self._stream, urgent=self._urgent)
        measuring = asyncio.create_task(depth.measure())
        messages = pull.messages()
        try:
            with nats_errors("pulling from the relay's stream"):
                async for message in messages:
                    task = asyncio.create_task(self._work(message, pull))
                    self._working.add(task)
                    task.add_done_callback(self._working.discard)
        finally:
            measuring.cancel()
            await messages.aclose()  # type: ignore[attr-defined]  # an async generator behind its interface
            await self._drain()

    async def _ensure_consumer(self) -> None:
        js, place = self._place.js, self._place
        wanted = api.ConsumerConfig(
            durable_name=place.worker,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._settings.ack_wait_seconds,
            max_deliver=-1,
            max_ack_pending=65536,
            max_waiting=512,
        )
        with nats_errors("creating the relay's consumer"):
            try:
                await js.add_consumer(self._stream, wanted)  # or update it to these settings
            except NotFoundError as error:
                raise BackendUnavailable(f"there is no stream {self._stream} yet") from error
            except APIError as error:
                if place.other_worker is None or error.err_code not in _WORK_QUEUE_TAKEN:
                    raise
                await self._replace(place.other_worker)
                await js.add_consumer(self._stream, wanted)

    async def _replace(self, worker: str) -> None:
        """Remove the consumer of a former version, whose name other domains have too; what it had in hand comes again.
        Raises ``BackendUnavailable`` while that receiver is at work."""
        js, seen = self._place.js, []
        for pause in (_LIVE, 0.0):
            info = await js.consumer_info(self._stream, worker)
            if info.num_waiting:
                raise BackendUnavailable(f"another receiver empties {self._stream}, by its consumer {worker}")
            seen.append(info.delivered)
            await asyncio.sleep(pause)
        if seen[0] != seen[1]:
            raise BackendUnavailable(f"another receiver empties {self._stream}, by its consumer {worker}")
        await js.delete_consumer(self._stream, worker)
        log.info("consumer replaced", stream=self._stream, domain=self._place.domain, former=worker)

    async def _drain(self) -> None:
        self._draining = True
        if not self._working:
            return
        _, late = await asyncio.wait(set(self._working), timeout=self._settings.drain_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _work(self, message: Msg, pull: Pull) -> None:
        try:
            async with self._in_progress(message):
                await (self._ends.settle(message) if self._ends.is_end(message) else self._settle(message))
        except asyncio.CancelledError:
            await message.nak()
            raise
        except Exception as error:  # noqa: BLE001 - not acknowledged, so it is delivered again after the ack wait
            log.warning("relayed message left for redelivery", stream=self._stream, error=repr(error))
        finally:
            pull.done(message)

    async def _settle(self, message: Msg) -> None:
        try:
            store = StoreMessage.from_headers(message.headers or {})
        except InvalidInput as error:
            await self._failed(message, error)
            return
        instance, order = store.call.command.sop_instance_uid, self._receiving.order
        # The clock of an edge may be ahead: what it sends later, set right, would count as older for so long.
        accepted_at = min(store.accepted_at or message.metadata.timestamp, datetime.now(UTC))
        store = replace(store, accepted_at=accepted_at)
        version = Version(instance, store.message, accepted_at, store.digest)
        async with order.turn(instance), self._receiving.turn(self._place.domain, urgent=self._urgent):
            if self._draining:
                await message.nak()
                return
            if (wait := order.wait(version)) is not None:
                order.waits(version, wait)
                await message.nak(delay=wait)
                return
            failure = await self._store(message, store, version)
            if failure is None:
                self._receiving.back()
                order.stored(version)
                await self._acknowledge(message)
            elif (again_in := await self._failed(message, failure)) is None:
                order.given_up(version)
            else:
                order.failed(version, again_in)

    async def _store(self, message: Msg, store: StoreMessage, version: Version) -> Exception | None:
        order = self._receiving.order
        if order.is_stored(version):
            return None
        if (newer := order.newer(version)) is not None:
            return Superseded(f"a version sent at {newer.sent_at:%H:%M:%S}, later than this one, is stored already")
        data = _Data(content(store, self._place.bucket, message.data))
        try:
            answer = await self._receiving.handler.store(store, data.read)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises must not end the consumer
            if isinstance(error, BackendUnavailable | DeadlineExceeded) and not data.failed:
                self._receiving.away()
            return error
        return failure_of(answer)

    async def _acknowledge(self, message: Msg) -> None:
        name = (message.headers or {}).get(H_OBJECT)
        if name is None:
            await message.ack()
            return
        # The object may go only when the server knows that nobody will be given its message again.
        with nats_errors("acknowledging a relayed store"):
            await message.ack_sync(timeout=self._settings.ack_wait_seconds)
        await self._place.bucket.discard(name)

    async def _failed(self, message: Msg, error: Exception) -> float | None:
        """Give it back or up; the seconds after which it is delivered again, None for a dead letter."""
        metadata, headers = message.metadata, message.headers or {}
        tries = self._receiving.order.tries(headers.get(H_MESSAGE, ""), metadata.num_delivered)
        age = datetime.now(UTC) - metadata.timestamp
        delay = self._receiving.policy.delay(error, tries, age)
        uid = headers.get(H_SOP_INSTANCE)
        if delay is None:
            await self._give_up(message, error, tries)
            log.error("relayed store is a dead letter", sop_instance=uid, tries=tries, error=_sentence(error))
            return None
        log.warning("relayed store failed", sop_instance=uid, tries=tries, again_in=delay, error=_sentence(error))
        await message.nak(delay=delay)
        return delay

    async def _give_up(self, message: Msg, error: Exception, tries: int) -> None:
        place, settings = self._place, self._settings
        home = self._receiving.home or place
        if home is not place:
            await ensure_relay(home.js, home.subjects, settings.stream_max_bytes, settings.stream_replicas)
        await bury(place, home, message, error, tries)
        with nats_errors("taking a dead letter from the relay's stream"):
            await message.ack_sync(timeout=settings.ack_wait_seconds)
        name = (message.headers or {}).get(H_OBJECT)
        if name is not None and home is not place:
            await place.bucket.discard(name)

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


class _Data:
    """A data set on its way to the handler. ``failed``: it was this that failed, on the line of one domain, and says
    nothing about the receiver."""

    def __init__(self, source: DataSource) -> None:
        self._source = source
        self.failed = False

    async def read(self) -> AsyncIterator[bytes]:
        self.failed = False
        try:
            async for block in self._source():
                yield block
        except Exception:
            self.failed = True
            raise


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
