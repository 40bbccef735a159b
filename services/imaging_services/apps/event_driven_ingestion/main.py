"""The event processor: wiring."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

from fastapi import FastAPI

from imaging_services.adapters.http.cloudevents import event_router
from imaging_services.adapters.http.guard import Guard
from imaging_services.adapters.http.server import serve
from imaging_services.adapters.nats.ingress import serve_ingress
from imaging_services.adapters.nats.queued import hear_queued
from imaging_services.adapters.nats.types import NatsClient
from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.adapters.postgres.migrate import migrate
from imaging_services.adapters.postgres.pool import open_pool
from imaging_services.apps.event_driven_ingestion.bridged import announcing_once
from imaging_services.apps.event_driven_ingestion.publish import SINK_LIMIT, Publish, post_to, publish_queued
from imaging_services.apps.event_driven_ingestion.revise import revise_quiet_studies
from imaging_services.apps.event_driven_ingestion.routes import query_router
from imaging_services.apps.event_driven_ingestion.settings import Settings
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, EVENT_TYPES, STUDY_REVISION
from imaging_services.domain.ports import Manifest
from imaging_services.runtime import Lifecycle
from imaging_services.wiring.events import event_log, open_event_client, open_sink
from imaging_services.wiring.record import BatchRecorder

_LOG_LIMIT = 512
_LOG_LONGEST = timedelta(minutes=1)


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Record, announce and answer until told to stop; then record what was taken in, and publish what is queued."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(settings.database))
        await migrate(pool)
        client, publish, limit, longest = await _destination(settings, stack)
        # A broker delivers ImageStoredEvent itself: it must not get back what it brought.
        queued_types = EVENT_TYPES if client else frozenset({DICOM_AVAILABLE, STUDY_REVISION})
        manifest = PostgresManifest(pool, settings.EVENT_SOURCE, queued_types, longest)
        queued = asyncio.Event()
        recorder = BatchRecorder(
            manifest,
            queued,
            batch_size=settings.RECORD_BATCH_SIZE,
            queue_size=settings.RECORD_QUEUE_SIZE,
            queue_bytes=settings.RECORD_QUEUE_BYTES,
        )
        if client:
            await stack.enter_async_context(hear_queued(client, settings.event_subjects(), queued))
        recorded = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish_queued(manifest, publish, queued, recorded, limit=limit))
            tasks.create_task(
                revise_quiet_studies(
                    manifest,
                    quiet=settings.quiet,
                    every=settings.STUDY_AGGREGATION_SCHEDULE,
                    queued=queued,
                    stop=lifecycle.stop,
                )
            )
            recording = tasks.create_task(recorder.run())
            await _take_in(settings, lifecycle, recorder, manifest, client)
            await recorder.close()
            await recording
            recorded.set()


async def _destination(settings: Settings, stack: AsyncExitStack) -> tuple[NatsClient | None, Publish, int, timedelta]:
    """Where events are published, how many at once, and how long that may take."""
    if settings.EVENTS_NATS_URL:
        client = await stack.enter_async_context(open_event_client(settings, "event-driven-ingestion"))
        log = event_log(client, settings)
        await log.prepare()
        return client, log.append, _LOG_LIMIT, _LOG_LONGEST
    sink = await stack.enter_async_context(open_sink(settings, "event-driven-ingestion"))
    longest = _LOG_LONGEST + SINK_LIMIT * timedelta(seconds=settings.EVENTS_SEND_TIMEOUT_SECONDS)
    return None, post_to(sink), SINK_LIMIT, longest


async def _take_in(
    settings: Settings, lifecycle: Lifecycle, recorder: BatchRecorder, manifest: Manifest, client: NatsClient | None
) -> None:
    """Serve HTTP, and NATS where there is one, until told to stop and everything taken in is answered."""
    accept = announcing_once(manifest, recorder.record)
    app = FastAPI(openapi_url=None)
    app.include_router(event_router(accept))
    app.include_router(event_router(accept, path="/events"))
    app.include_router(query_router(manifest))
    guard = Guard(app, concurrency=settings.HTTP_CONCURRENCY)
    heard = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        ingress = None
        if client:
            ingress = tasks.create_task(
                serve_ingress(
                    client,
                    settings.EVENTS_NATS_SUBJECT_ROOT,
                    settings.EVENTS_STREAM,
                    accept,
                    concurrency=settings.RECORD_BATCH_SIZE * 2,
                    started=heard,
                )
            )
            await heard.wait()
        lifecycle.ready.set()
        await serve(guard, settings.HTTP_HOST, settings.HTTP_PORT, lifecycle.stop, drain_seconds=settings.DRAIN_SECONDS)
        if ingress:
            ingress.cancel()
