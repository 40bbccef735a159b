"""Where events go and come from: the choice between NATS and HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imaging_services.adapters.http.sink import HttpEventSink
from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.events import JetStreamEventLog
from imaging_services.adapters.nats.settings import EventLogSettings, EventSettings
from imaging_services.adapters.nats.sink import NatsEventSink
from imaging_services.adapters.nats.types import NatsClient
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.ports import EventSink


@asynccontextmanager
async def open_sink(
    settings: EventSettings, name: str = "imaging", *, insecure_skip_verify: bool = False
) -> AsyncIterator[EventSink]:
    """Where events are handed in: ``EVENTS_NATS_URL`` wins, else ``K_SINK``.

    Raises ``SettingsError`` when neither is set, ``BackendUnavailable`` when NATS is not there at the start.
    """
    if settings.EVENTS_NATS_URL:
        async with connect(settings.event_nats(name)) as client:
            yield NatsEventSink(client, settings.event_subjects(), timeout=settings.EVENTS_SEND_TIMEOUT_SECONDS)
    elif settings.K_SINK:
        sink = HttpEventSink(
            settings.K_SINK,
            timeout=settings.EVENTS_SEND_TIMEOUT_SECONDS,
            insecure_skip_verify=insecure_skip_verify,
        )
        try:
            yield sink
        finally:
            await sink.close()
    else:
        raise SettingsError("no place to hand in events: set EVENTS_NATS_URL or K_SINK")


@asynccontextmanager
async def open_event_client(settings: EventSettings, name: str = "imaging") -> AsyncIterator[NatsClient]:
    """The connection to the event log's NATS, for whoever shares it between log and ingress."""
    async with connect(settings.event_nats(name)) as client:
        yield client


@asynccontextmanager
async def open_event_log(settings: EventLogSettings, name: str = "imaging") -> AsyncIterator[JetStreamEventLog]:
    """The event log, on a connection of its own."""
    async with open_event_client(settings, name) as client:
        yield event_log(client, settings)


def event_log(client: NatsClient, settings: EventLogSettings) -> JetStreamEventLog:
    """The event log on an open connection."""
    return JetStreamEventLog(client, settings.event_subjects(), settings.event_policy())
