"""Saying that something waits in the outbox: from the services that record by themselves to the event processors.

A message that gets lost delays only: processors look by themselves every few seconds.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from imaging_services.adapters.nats.connection import nats_errors, reach_server
from imaging_services.domain.errors import RetryableError
from imaging_services.domain.events.subjects import EventSubjects

log = structlog.get_logger(__name__)

_QUEUE = "event-processors"
_GATHERING = 0.2  # seconds between two messages; the first after a pause leaves at once


async def tell_queued(client: Client, subjects: EventSubjects, queued: asyncio.Event) -> None:
    """Say so soon after ``queued`` is set, until cancelled."""
    while True:
        await queued.wait()
        queued.clear()
        try:
            with nats_errors("saying that events are queued"):
                await client.publish(subjects.queued)
        except RetryableError as error:
            log.debug("the event processor finds by itself what is queued", reason=str(error))
        await asyncio.sleep(_GATHERING)


@asynccontextmanager
async def hear_queued(client: Client, subjects: EventSubjects, queued: asyncio.Event) -> AsyncIterator[None]:
    """Set ``queued`` when a service says so, while the context lasts. Of several processors one hears each message."""

    async def on_message(_: Msg) -> None:
        queued.set()

    with nats_errors("listening for what is queued"):
        subscription = await client.subscribe(subjects.queued, queue=_QUEUE, cb=on_message)
        await reach_server(client)
    try:
        yield
    finally:
        if not client.is_closed:
            await subscription.unsubscribe()
