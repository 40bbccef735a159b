"""A durable consumer of CloudEvents: explicit acknowledgement, patience that grows, then a dead letter."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError
from prometheus_client import Counter

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.policy import EventPolicy
from imaging_services.adapters.nats.pull import Puller
from imaging_services.domain.errors import ImagingError, InvalidInput, RetryableError, is_retryable
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.nats_binding import decode_nats
from imaging_services.domain.ports import EventHandler

log = structlog.get_logger(__name__)

DELIVERIES = Counter("imaging_event_deliveries", "deliveries of events to a consumer", ["consumer", "outcome"])

# Messages delivered and not acknowledged, those waiting for their next try included: when a subscriber is away
# for long, the rest stays in the stream.
_MAX_PENDING = 50_000
_RESUME_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a consumer gave up on a message."""

    consumer: str
    reason: str
    attempts: int


class GiveUp(Protocol):
    """Keeps a message as a dead letter; durable on return."""

    async def __call__(self, message: Msg, failure: Failure) -> None:
        """``message`` is the original. Raises a RetryableError when it could not be kept."""
        ...


class Prepare(Protocol):
    """Makes the stream exist."""

    async def __call__(self) -> None:
        """Raises nats-py's errors or a RetryableError."""
        ...


@dataclass(frozen=True, slots=True)
class Consumption:
    """What a durable consumer takes: ``name`` as people know it, ``durable`` as NATS does."""

    stream: str
    name: str
    durable: str
    filter_subjects: tuple[str, ...]
    concurrency: int


class DurableConsumer:
    """Delivers the messages of one durable consumer to a handler, for as long as it takes."""

    def __init__(self, client: Client, what: Consumption, policy: EventPolicy, prepare: Prepare, give_up: GiveUp):
        self._client = client
        self._what = what
        self._policy = policy
        self._prepare = prepare
        self._give_up = give_up

    async def consume(self, handler: EventHandler) -> None:
        """Deliver until cancelled, then finish what is in the handler. NATS restarts and lost streams are survived."""
        stopping = asyncio.Event()
        delivery = asyncio.create_task(self._deliver(handler, stopping))
        try:
            await asyncio.shield(delivery)
        except asyncio.CancelledError:
            stopping.set()
            await delivery
            raise

    async def _deliver(self, handler: EventHandler, stopping: asyncio.Event) -> None:
        async def take(message: Msg) -> None:
            await self._take(message, handler)

        what = self._what
        while not stopping.is_set():
            try:
                with nats_errors(f"consuming events as {what.name}"):
                    await self._prepare()
                    await self._create()
                    js = self._client.jetstream(domain=self._policy.domain)
                    request = f"{js._prefix}.CONSUMER.MSG.NEXT.{what.stream}.{what.durable}"
                    await Puller(self._client, request, take, what.concurrency).run(stopping)
            except RetryableError as error:
                log.warning("event consumer interrupted", consumer=what.name, error=str(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _RESUME_SECONDS)

    async def _create(self) -> None:
        """Create the consumer, or change it to what is wanted now; where it began cannot be changed any more."""
        js = self._client.jetstream(domain=self._policy.domain)
        wanted = ConsumerConfig(
            name=self._what.durable,
            durable_name=self._what.durable,
            filter_subjects=list(self._what.filter_subjects),
            deliver_policy=DeliverPolicy.ALL if self._policy.deliver_from == "all" else DeliverPolicy.NEW,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._policy.ack_wait.total_seconds(),
            max_deliver=-1,
            max_ack_pending=_MAX_PENDING,
        )
        try:
            present = (await js.consumer_info(self._what.stream, self._what.durable)).config
        except NotFoundError:
            log.info("event consumer created", consumer=self._what.name, subjects=wanted.filter_subjects)
        else:
            wanted.deliver_policy = present.deliver_policy
        await js.add_consumer(self._what.stream, wanted)

    async def _take(self, message: Msg, handler: EventHandler) -> None:
        """One delivery. Nothing is raised: one event's trouble is not the others'."""
        try:
            outcome = await self._handle(message, handler)
        except (RetryableError, nats.errors.Error, OSError) as error:
            # Neither acknowledged nor kept as dead letter: JetStream delivers it again after the ack time.
            log.warning("event could not be settled", consumer=self._what.name, error=str(error))
            outcome = "unsettled"
        DELIVERIES.labels(self._what.name, outcome).inc()

    async def _handle(self, message: Msg, handler: EventHandler) -> str:
        tries = message.metadata.num_delivered
        async with self._in_progress(message):
            try:
                event = decode_nats(message.headers, message.data)
            except InvalidInput as error:
                return await self._bury(message, None, str(error), tries)
            try:
                await handler(event)
            except Exception as error:  # noqa: BLE001 - whatever the handler raises is settled here, by its type
                return await self._settle_failure(message, event, error, tries)
        await message.ack()
        log.debug("event delivered", consumer=self._what.name, type=event.type, id=event.id)
        return "done"

    async def _settle_failure(self, message: Msg, event: CloudEvent, error: Exception, tries: int) -> str:
        reason = str(error) if isinstance(error, ImagingError) else f"{type(error).__name__}: {error}"
        if not is_retryable(error) or tries >= self._policy.max_tries:
            return await self._bury(message, event, reason, tries)
        delay = self._policy.delay(tries)
        await message.nak(delay)
        # What we did not foresee comes with its traceback.
        foreseen = isinstance(error, ImagingError)
        log.warning(
            "event will be tried again",
            consumer=self._what.name,
            type=event.type,
            id=event.id,
            tries=tries,
            delay_seconds=delay,
            error=reason,
            exc_info=None if foreseen else error,
        )
        return "again"

    async def _bury(self, message: Msg, event: CloudEvent | None, reason: str, tries: int) -> str:
        await self._give_up(message, Failure(self._what.name, reason, tries))
        await message.term()
        log.error(
            "event became a dead letter",
            consumer=self._what.name,
            type=event.type if event else None,
            id=event.id if event else None,
            tries=tries,
            reason=reason,
        )
        return "dead"

    @asynccontextmanager
    async def _in_progress(self, message: Msg) -> AsyncIterator[None]:
        """Tell the server at a third of the ack time that the message is still being worked on."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(self._policy.ack_wait.total_seconds() / 3)
                with suppress(nats.errors.Error, OSError):  # the next one may reach it
                    await message.in_progress()

        keeper = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeper.cancel()
