"""A site for tests of the event bridge: its event log, a processor in front of it, and a bridge."""

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.events import JetStreamEventLog
from imaging_services.adapters.nats.ingress import serve_ingress
from imaging_services.adapters.nats.types import NatsClient
from imaging_services.apps.event_bridge.main import main
from imaging_services.apps.event_bridge.settings import Settings
from imaging_services.domain.errors import ImagingError
from imaging_services.domain.events.envelope import (
    DICOM_AVAILABLE,
    EVENT_TYPES,
    IMAGE_STORED,
    CloudEvent,
    event_id,
)
from imaging_services.runtime import Lifecycle
from support.events import consuming, in_background


@dataclasses.dataclass
class Site:
    """What happened here: ``recorded`` by the processor, ``subscribed`` what a binding got from the log."""

    name: str
    settings: Settings
    client: NatsClient
    log: JetStreamEventLog
    recorded: list[CloudEvent] = dataclasses.field(default_factory=list)
    subscribed: list[CloudEvent] = dataclasses.field(default_factory=list)
    failures: list[ImagingError] = dataclasses.field(default_factory=list)

    async def process(self, event: CloudEvent) -> None:
        """As the event processor does: an image once, followed by its announcement; other types to the log."""
        if self.failures:
            raise self.failures.pop(0)
        follow_ups = [event]
        if event.type == IMAGE_STORED:
            if event.id in {known.id for known in self.recorded}:
                return
            self.recorded.append(event)
            follow_ups.append(
                CloudEvent(
                    DICOM_AVAILABLE, self.name, event_id(DICOM_AVAILABLE, event.id), b"{}", extensions=event.extensions
                )
            )
        await self.log.append(follow_ups)

    def got(self, event_type: str) -> list[str]:
        """Ids that the binding got, of one type."""
        return [event.id for event in self.subscribed if event.type == event_type]

    @asynccontextmanager
    async def bridge(self) -> AsyncIterator[None]:
        """The bridge, running; stopped as SIGTERM stops it."""
        lifecycle = Lifecycle()
        running = asyncio.create_task(main(self.settings, lifecycle))
        ready = asyncio.create_task(lifecycle.ready.wait())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        try:
            yield
        finally:
            lifecycle.stop.set()
            await running


@asynccontextmanager
async def a_site(name: str, nats_url: str, bridge_root: str, **settings: Any) -> AsyncIterator[Site]:
    """A site whose processor and binding run; its bridge is started by the test."""
    complete = Settings(
        NATS_URL=nats_url,
        NATS_SUBJECT_ROOT=bridge_root,
        EVENTS_NATS_URL=nats_url,
        EVENTS_NATS_SUBJECT_ROOT=name,
        EVENTS_STREAM=f"{name}-{uuid.uuid4().hex}",
        EVENTS_RETRY_DELAYS_SECONDS="0.05,0.1",
        EVENTS_MAX_TRIES=5,
        HTTP_PORT=0,
        **settings,
    )
    started = asyncio.Event()
    async with connect(complete.event_nats(name)) as client:
        log = JetStreamEventLog(client, complete.event_subjects(), complete.event_policy())
        site = Site(name, complete, client, log)

        async def subscribe(event: CloudEvent) -> None:
            site.subscribed.append(event)

        ingress = serve_ingress(client, name, complete.EVENTS_STREAM, site.process, started=started)
        async with in_background(ingress), consuming(log, "binding", subscribe, EVENT_TYPES):
            await started.wait()
            yield site


def write_locations(path: Path, **locations: str) -> Path:
    """An edge location file."""
    path.write_bytes(orjson.dumps(locations))
    return path
