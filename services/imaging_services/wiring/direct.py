"""Services that reach the manifest's database record their events in it, without the hop to the event processor.

They record exactly as it does: in one transaction with the outbox, which the processor publishes.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import structlog
from pydantic import Field, model_validator

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.queued import tell_queued
from imaging_services.adapters.nats.settings import EventSettings
from imaging_services.adapters.nats.sink import NatsEventSink
from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.adapters.postgres.migrate import is_current
from imaging_services.adapters.postgres.pool import Pool, open_pool
from imaging_services.adapters.postgres.settings import DatabaseVariables, PostgresSettings
from imaging_services.domain.errors import DeadlineExceeded, RetryableError
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.ports import EventSink
from imaging_services.domain.retries import until_taken
from imaging_services.wiring.events import open_sink
from imaging_services.wiring.record import BatchRecorder

log = structlog.get_logger(__name__)

_CONNECTIONS = 2  # to record, and to look at the schema; searches have others, and cannot keep these busy
_BATCH_SIZE, _QUEUE_SIZE, _QUEUE_BYTES = 500, 5000, 64 * 1024 * 1024
_LOOK_AGAIN = 2.0  # seconds
_LEAST_PATIENCE = 5.0  # seconds
_LAST_COMMIT = 10.0  # seconds for what is recorded when the service ends


class RecordingVariables(EventSettings, DatabaseVariables):
    """What a service needs that can record its events itself: mix into its ``Settings``."""

    EVENTS_RECORDED_BY: Literal["processor", "service"] = Field(
        default="processor",
        description="who records the events of this service in the manifest: the event processor, or the service "
        "itself, which costs less CPU time and needs DB_HOST (the processor's database) and EVENTS_NATS_URL",
    )

    @model_validator(mode="after")
    def _can_record(self) -> "RecordingVariables":
        if self.EVENTS_RECORDED_BY == "service" and not (self.DB_HOST and self.EVENTS_NATS_URL):
            raise ValueError(
                "EVENTS_RECORDED_BY=service needs DB_HOST and EVENTS_NATS_URL: without the event log, a broker delivers"
                " events to the processor, which records them"
            )
        return self


@asynccontextmanager
async def open_recording_sink(settings: RecordingVariables, name: str, source: str) -> AsyncIterator[EventSink]:
    """Where a service hands in its events, recorded by whom its settings say. ``source`` is the CloudEvents source of
    the events that follow from them.

    Raises ``SettingsError`` when there is no such place, ``BackendUnavailable`` when NATS or the database is not there
    at the start.
    """
    database = settings.postgres(f"{name} recording")
    if settings.EVENTS_RECORDED_BY == "processor" or database is None:
        async with open_sink(settings, name) as sink:
            yield sink
    else:
        async with _open_direct_sink(settings, database, name, source) as direct:
            yield direct


@asynccontextmanager
async def _open_direct_sink(
    settings: RecordingVariables, database: PostgresSettings, name: str, source: str
) -> AsyncIterator["DirectSink"]:
    subjects, timeout = settings.event_subjects(), settings.EVENTS_SEND_TIMEOUT_SECONDS
    # A connection that went silent is given up after twice this, when nobody waits for it any more.
    seconds = min(database.timeout_seconds, max(timeout / 2, _LEAST_PATIENCE))
    few = database.model_copy(update={"min_size": 0, "max_size": _CONNECTIONS, "timeout_seconds": seconds})
    async with connect(settings.event_nats(name)) as client, open_pool(few) as pool, asyncio.TaskGroup() as tasks:
        queued = asyncio.Event()
        recorder = BatchRecorder(
            PostgresManifest(pool, source),
            queued,
            batch_size=_BATCH_SIZE,
            queue_size=_QUEUE_SIZE,
            queue_bytes=_QUEUE_BYTES,
        )
        recording = tasks.create_task(recorder.run())
        telling = tasks.create_task(tell_queued(client, subjects, queued))
        yield DirectSink(recorder, NatsEventSink(client, subjects, timeout=timeout), Schema(pool), timeout=timeout)
        await recorder.close()
        await asyncio.wait({recording}, timeout=_LAST_COMMIT)
        recording.cancel()
        telling.cancel()


class Schema:
    """Whether the database has the schema of this version, looked at every two seconds while somebody asks.

    In a rolling update a processor of another version has migrated it, or has yet to.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._current, self._looked = False, 0.0
        self._looking = asyncio.Lock()

    async def is_current(self) -> bool:
        """False also when the database does not say."""
        async with self._looking:
            if not self._looked or time.monotonic() - self._looked > _LOOK_AGAIN:
                await self._look()
        return self._current

    def look_again(self) -> None:
        """Something has failed: it may have changed just now."""
        self._looked = 0.0

    async def _look(self) -> None:
        before = self._current
        try:
            self._current = await is_current(self._pool)
        except RetryableError as error:
            self._current = False
            log.warning("the database is not asked, the event processor records", reason=str(error))
        self._looked = time.monotonic()
        if before != self._current:
            log.info("events are recorded", by="service" if self._current else "processor")


class DirectSink:
    """Records events itself while the schema is the one that it knows, and hands them to the event processor otherwise.

    What fails is tried again within ``timeout`` seconds, as by ``NatsEventSink``.
    """

    def __init__(
        self, recorder: BatchRecorder, processor: NatsEventSink, schema: Schema, *, timeout: float = 30
    ) -> None:
        self._recorder, self._processor, self._schema = recorder, processor, schema
        self._timeout = timeout

    async def send(self, event: CloudEvent) -> None:
        """See ``EventSink.send``."""

        async def attempt(tries: int, left: float) -> None:
            began = time.monotonic()
            current = await self._is_current(left)
            left -= time.monotonic() - began
            if current:
                await self._record(event, left)
            else:
                await self._processor.attempt(event, tries, left)

        await until_taken(attempt, self._timeout, event.id)

    async def close(self) -> None:
        """Listen for the processor's answers no more; recorder and connections are their owner's."""
        await self._processor.close()

    async def _is_current(self, left: float) -> bool:
        try:
            async with asyncio.timeout(left):
                return await self._schema.is_current()
        except TimeoutError:
            raise DeadlineExceeded(f"recording an event: no answer of the database within {left:.0f} s") from None

    async def _record(self, event: CloudEvent, left: float) -> None:
        # What the processor could not publish is refused, as it refuses it.
        self._processor.require_room(event)
        try:
            async with asyncio.timeout(left):
                await self._recorder.record(event)
        except TimeoutError:
            self._schema.look_again()
            raise DeadlineExceeded(f"recording an event: not committed within {left:.0f} s") from None
        except RetryableError:
            self._schema.look_again()
            raise
