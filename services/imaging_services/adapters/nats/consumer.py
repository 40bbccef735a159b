"""A durable consumer of CloudEvents: explicit acknowledgement, patience that grows, then a dead letter."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.errors import NotFoundError
from prometheus_client import Counter

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.hands import Hands
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
_SILENCE_SECONDS = 30.0  # before the same trouble is told again


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
    """What a consumer takes: ``name`` as people know it, ``durable`` as NATS does. Urgent messages have a durable of
    their own, so that they do not wait behind the others; without ``urgent_subjects`` there is none."""

    stream: str
    name: str
    durable: str
    filter_subjects: tuple[str, ...]
    concurrency: int
    urgent_durable: str = ""
    urgent_subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Lane:
    """One of a consumer's durables."""

    durable: str
    subjects: tuple[str, ...]
    urgent: bool = False


class DurableConsumer:
    """Delivers the messages of one durable consumer to a handler, for as long as it takes."""

    def __init__(self, client: Client, what: Consumption, policy: EventPolicy, prepare: Prepare, give_up: GiveUp):
        self._client = client
        self._what = what
        self._policy = policy
        self._prepare = prepare
        self._give_up = give_up
        self._hands = Hands(what.concurrency)
        self._creating = asyncio.Lock()

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
        """Each durable by itself: what befalls one of them does not hold the other up."""
        what = self._what
        lanes = [_Lane(what.durable, what.filter_subjects)]
        if what.urgent_subjects:
            lanes.append(_Lane(what.urgent_durable, what.urgent_subjects, urgent=True))
        tasks = [asyncio.create_task(self._keep(lane, handler, stopping)) for lane in lanes]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, lane: _Lane, handler: EventHandler, stopping: asyncio.Event) -> None:
        """Pull from one durable until ``stopping`` is set; it is made again when it is gone."""
        told, told_at = "", 0.0
        while not stopping.is_set():
            try:
                with nats_errors(f"consuming events as {self._what.name}"):
                    await self._create(lane)
                told = ""
                await self._pull(lane, handler, stopping)
            except RetryableError as error:
                if str(error) != told or time.monotonic() > told_at + _SILENCE_SECONDS:
                    told, told_at = str(error), time.monotonic()
                    log.warning("event consumer interrupted", consumer=self._what.name, urgent=lane.urgent, error=told)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _RESUME_SECONDS)

    async def _pull(self, lane: _Lane, handler: EventHandler, stopping: asyncio.Event) -> None:
        """Pull until ``stopping`` is set or the durable is gone. As many messages wait here for a hand as there are
        hands: another lane's may have them."""

        async def take(message: Msg) -> None:
            async with self._in_progress(message), self._hands.hand(urgent=lane.urgent) as waited:
                if waited and stopping.is_set():
                    await self._give_back(message)
                else:
                    await self._take(message, handler)

        with nats_errors(f"consuming events as {self._what.name}"):
            js = self._client.jetstream(domain=self._policy.domain)
            request = f"{js._prefix}.CONSUMER.MSG.NEXT.{self._what.stream}.{lane.durable}"
            await Puller(self._client, request, take, self._what.concurrency).run(stopping)

    async def _give_back(self, message: Msg) -> None:
        with suppress(nats.errors.Error, OSError):  # it comes again after the ack time
            await message.nak()

    async def _create(self, lane: _Lane) -> None:
        """Create the durable, or change it to what is wanted now; where it began cannot be changed any more."""
        await self._prepare()
        async with self._creating:  # the urgent one needs the other, and may come first
            own = await self._own(lane)
        if lane.urgent:
            # One of a former version has begun already, without the urgent ones: they count from where it did.
            wanted = self._wanted(lane.durable, lane.subjects, DeliverPolicy.ALL)
            if own.config.deliver_policy == DeliverPolicy.NEW:
                wanted.deliver_policy, wanted.opt_start_time = DeliverPolicy.BY_START_TIME, own.created
            await self._ensure(wanted)

    async def _own(self, lane: _Lane) -> ConsumerInfo:
        """The durable of the others. To change it is their lane's: the server writes it down each time."""
        what = self._what
        if lane.urgent:
            js = self._client.jetstream(domain=self._policy.domain)
            with suppress(NotFoundError):
                present: ConsumerInfo = await js.consumer_info(what.stream, what.durable)
                return present
        begin = DeliverPolicy.ALL if self._policy.deliver_from == "all" else DeliverPolicy.NEW
        return await self._ensure(self._wanted(what.durable, what.filter_subjects, begin))

    def _wanted(self, durable: str, subjects: tuple[str, ...], begin: DeliverPolicy) -> ConsumerConfig:
        return ConsumerConfig(
            name=durable,
            durable_name=durable,
            filter_subjects=list(subjects),
            deliver_policy=begin,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._policy.ack_wait.total_seconds(),
            max_deliver=-1,
            max_ack_pending=_MAX_PENDING,
        )

    async def _ensure(self, wanted: ConsumerConfig) -> ConsumerInfo:
        js = self._client.jetstream(domain=self._policy.domain)
        try:
            present = (await js.consumer_info(self._what.stream, str(wanted.durable_name))).config
        except NotFoundError:
            log.info("event consumer created", consumer=self._what.name, subjects=wanted.filter_subjects)
        else:
            wanted.deliver_policy, wanted.opt_start_time = present.deliver_policy, present.opt_start_time
        return await js.add_consumer(self._what.stream, wanted)

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
