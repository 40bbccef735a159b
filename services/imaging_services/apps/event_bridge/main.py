"""The event bridge: wiring."""

import asyncio
from contextlib import AsyncExitStack

from fastapi import FastAPI

from imaging_services.adapters.http.cloudevents import event_router
from imaging_services.adapters.http.server import serve
from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.mailbox import JetStreamMailboxes
from imaging_services.apps.event_bridge.forward import Forward, Receive, route_of
from imaging_services.apps.event_bridge.locations import EdgeLocations
from imaging_services.apps.event_bridge.settings import Settings
from imaging_services.domain.events.subjects import MailboxSubjects
from imaging_services.runtime import Lifecycle
from imaging_services.wiring.events import open_event_log, open_sink


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Carry events both ways until told to stop; then finish those under way."""
    settings.check()
    async with AsyncExitStack() as stack:
        locations = await _locations(settings)
        client = await stack.enter_async_context(connect(settings.bridge_nats(f"event-bridge-{settings.mailbox}")))
        mailboxes = JetStreamMailboxes(client, settings.NATS_SUBJECT_ROOT, settings.mailbox_policy())
        edges = (await locations.current()).values() if locations else ()
        await mailboxes.prepare({settings.mailbox, *edges})
        sink = await stack.enter_async_context(
            open_sink(settings, settings.EVENTS_CONSUMER, insecure_skip_verify=settings.INSECURE_SKIP_VERIFY)
        )
        forward = Forward(settings.mailbox, route_of(locations), mailboxes)
        many = settings.BRIDGE_CONCURRENCY
        work = [mailboxes.consume(settings.mailbox, Receive(sink), concurrency=many)]
        if settings.EVENTS_NATS_URL:
            log = await stack.enter_async_context(open_event_log(settings, settings.EVENTS_CONSUMER))
            work.append(log.consume(settings.EVENTS_CONSUMER, settings.event_types(), forward, concurrency=many))
        app = FastAPI(openapi_url=None)
        app.include_router(event_router(forward))
        async with asyncio.TaskGroup() as tasks:
            consumers = [tasks.create_task(each) for each in work]
            tasks.create_task(_ready(lifecycle, consumers))
            await serve(
                app,
                settings.HTTP_HOST,
                settings.HTTP_PORT,
                lifecycle.stop,
                drain_seconds=settings.DRAIN_SECONDS,
            )


async def _ready(lifecycle: Lifecycle, consumers: list["asyncio.Task[None]"]) -> None:
    """Take work until told to stop, then end the consumers, which finish what is in their hands."""
    lifecycle.ready.set()
    await lifecycle.stop.wait()
    for consumer in consumers:
        consumer.cancel()


async def _locations(settings: Settings) -> EdgeLocations | None:
    if settings.BRIDGE_ROLE == "edge" or settings.EDGE_LOCATION_CONFIG is None:
        return None
    subjects = MailboxSubjects(settings.NATS_SUBJECT_ROOT)
    return await asyncio.to_thread(EdgeLocations, settings.EDGE_LOCATION_CONFIG, subjects)
