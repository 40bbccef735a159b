"""Publishing what the manifest has queued."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from prometheus_client import Counter

from imaging_services.domain.errors import ImagingError
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.ports import EventSink, Manifest

log = structlog.get_logger(__name__)

Publish = Callable[[Sequence[CloudEvent]], Awaitable[None]]

_PUBLISHED = Counter("imaging_events_published_total", "Events that left the outbox")
_LOOK_AGAIN = 5.0  # seconds; for what a processor that died had queued
_GATHERING = 0.2  # seconds between two publications; the first after a pause leaves at once
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_SINK_SLICE = 16


async def publish_queued(
    manifest: Manifest, publish: Publish, queued: asyncio.Event, stop: asyncio.Event, *, limit: int = 512
) -> None:
    """Publish until ``stop``, soon after ``queued`` is set: what is queued within a fifth of a second leaves together,
    so that a single sender's instances do not cost two transactions each. While the log does not answer, events wait
    in the database and are tried again with growing pauses; what is left at the end, the next processor publishes."""
    pause = _FIRST_PAUSE
    while True:
        queued.clear()
        try:
            while (published := await manifest.publish_pending(publish, limit)) == limit:
                _PUBLISHED.inc(published)
            _PUBLISHED.inc(published)
            pause = _FIRST_PAUSE
        except ImagingError as error:
            log.warning("events wait to be published", reason=str(error), again_in_seconds=pause)
            if await _any_set(stop, timeout=pause):
                return
            pause = min(pause * 2, _LONGEST_PAUSE)
            continue
        if stop.is_set():
            return
        await _any_set(stop, timeout=_GATHERING)
        await _any_set(queued, stop, timeout=_LOOK_AGAIN)


async def _any_set(*events: asyncio.Event, timeout: float) -> bool:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for wait in waits:
            wait.cancel()


def post_to(sink: EventSink) -> Publish:
    """Publish by posting to a broker, one after the other, so that order is kept. A few at a time leave the outbox
    together, so that a slow broker does not see many again after an interruption."""

    async def publish(events: Sequence[CloudEvent]) -> None:
        for event in events:
            await sink.send(event)

    return publish


SINK_LIMIT = _SINK_SLICE
"""Events to post to a broker before they are taken out of the outbox."""
