"""The event log on JetStream: one stream for each event-driven ingestion, a durable consumer for each binding."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence

import structlog
from nats.aio.client import Client
from nats.js.api import PubAck, StreamConfig
from nats.js.errors import NoStreamResponseError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.consumer import Consumption, DurableConsumer
from imaging_services.adapters.nats.dead_letters import DeadLetterBox
from imaging_services.adapters.nats.limits import require_room
from imaging_services.adapters.nats.policy import EventPolicy
from imaging_services.adapters.nats.streams import ensure_stream, stream_config
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, InvalidInput
from imaging_services.domain.events.envelope import CloudEvent, is_urgent
from imaging_services.domain.events.nats_binding import deduplication_id, encode_nats
from imaging_services.domain.events.subjects import EventSubjects, urgent_durable
from imaging_services.domain.nats_names import token
from imaging_services.domain.ports import DeadLetter, EventHandler

log = structlog.get_logger(__name__)

_IN_FLIGHT = 512  # publishes under way at once; JetStream acknowledges each after it is written
_ACK_SECONDS = 10.0
_LOOK_SECONDS = 0.5  # between looks at the connection


class JetStreamEventLog:
    """``EventLog`` over an open connection. Streams are created when first needed and again when they vanish."""

    def __init__(self, client: Client, subjects: EventSubjects, policy: EventPolicy | None = None) -> None:
        self._client = client
        self._subjects = subjects
        self._policy = policy or EventPolicy()
        self._js = client.jetstream(domain=self._policy.domain)
        self._prepared = False
        self._dead_letters = DeadLetterBox(
            client=client,
            stream=subjects.dead_letter_stream,
            subject=subjects.dead_letters,
            redrive_subject=self._redrive_subject,
            prepare=self.prepare,
            domain=self._policy.domain,
        )

    async def prepare(self) -> None:
        """Make both streams exist, with at least our subjects and limits. Raises a RetryableError."""
        with nats_errors("preparing the event log"):
            for wanted in self._streams():
                await ensure_stream(self._js, wanted)
        self._prepared = True

    async def append(self, events: Sequence[CloudEvent]) -> None:
        """As the port says. Order is kept, except after a failure in the midst of a batch.

        Raises ``InvalidInput`` for an event above the server's ``max_payload``, after the others are durable.
        """
        if not self._prepared:
            await self.prepare()
        with nats_errors("appending events"):
            for start in range(0, len(events), _IN_FLIGHT):
                chunk = events[start : start + _IN_FLIGHT]
                try:
                    await self._publish(chunk)
                except NoStreamResponseError:
                    await self.prepare()
                    await self._publish(chunk)

    async def consume(
        self, consumer: str, types: frozenset[str], handler: EventHandler, *, concurrency: int = 8
    ) -> None:
        """As the port says; the durable's name follows from the consumer's."""
        what = Consumption(
            stream=self._subjects.event_stream,
            name=consumer,
            durable=token(consumer),
            filter_subjects=(*sorted(map(self._subjects.event, types)), self._subjects.redrive(consumer)),
            concurrency=concurrency,
            urgent_durable=urgent_durable(consumer),
            urgent_subjects=(
                *sorted(map(self._subjects.urgent_event, types)),
                self._subjects.urgent_redrive(consumer),
            ),
        )
        await DurableConsumer(self._client, what, self._policy, self.prepare, self._dead_letters.keep).consume(handler)

    async def dead_letters(self, consumer: str | None = None) -> AsyncIterator[DeadLetter]:
        """As the port says: those that are there now."""
        async for letter in self._dead_letters.list(consumer):
            yield letter

    async def redrive(self, consumer: str | None = None, sequences: Sequence[int] | None = None) -> int:
        """As the port says: removed from the dead letters only after they are published again."""
        return await self._dead_letters.redrive(consumer, sequences)

    def _streams(self) -> list[StreamConfig]:
        subjects, policy = self._subjects, self._policy
        return [
            stream_config(
                subjects.event_stream,
                [subjects.all_events, subjects.all_redrives, subjects.all_urgent],
                max_age=policy.retention,
                max_bytes=policy.max_bytes,
                duplicate_window=policy.duplicate_window,
                replicas=policy.replicas,
                compressed=policy.compressed,
            ),
            stream_config(
                subjects.dead_letter_stream,
                [subjects.all_dead_letters],
                max_age=policy.dead_letter_retention,
                duplicate_window=policy.duplicate_window,
                replicas=policy.replicas,
                compressed=policy.compressed,
            ),
        ]

    async def _publish(self, events: Sequence[CloudEvent]) -> None:
        """Publish without waiting in between, then wait for every acknowledgement."""
        acks: list[asyncio.Future[PubAck]] = []
        too_large: InvalidInput | None = None
        try:
            for event in events:
                headers, payload = encode_nats(event)
                headers["Nats-Msg-Id"] = deduplication_id(event)
                try:
                    require_room(self._client, event, headers, payload)
                except InvalidInput as error:
                    too_large = error
                    continue
                acks.append(await self._js.publish_async(self._subject(event), payload, headers=headers))
            await self._all_acknowledged(acks)
        finally:
            for ack in acks:
                ack.cancel()
        if too_large is not None:
            raise too_large

    def _subject(self, event: CloudEvent) -> str:
        return self._subjects.urgent_event(event.type) if is_urgent(event) else self._subjects.event(event.type)

    def _redrive_subject(self, letter: DeadLetter) -> str:
        name = self._subjects.urgent_redrive if is_urgent(letter.event) else self._subjects.redrive
        return name(letter.consumer)

    async def _all_acknowledged(self, acks: Sequence["asyncio.Future[PubAck]"]) -> None:
        """Wait, but not for acknowledgements that were lost with their connection."""
        waiting: Collection[asyncio.Future[PubAck]] = acks
        reconnects, deadline = self._client.stats["reconnects"], time.monotonic() + _ACK_SECONDS
        while waiting:
            _, waiting = await asyncio.wait(waiting, timeout=_LOOK_SECONDS)
            if waiting and self._client.stats["reconnects"] != reconnects:
                raise BackendUnavailable("appending events: the connection was lost before they were acknowledged")
            if waiting and time.monotonic() > deadline:
                raise DeadlineExceeded(f"appending events: {len(waiting)} of {len(acks)} not acknowledged in time")
        errors = [error for ack in acks if (error := ack.exception())]
        if errors:
            raise errors[0]
