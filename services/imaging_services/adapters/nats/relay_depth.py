"""How many stores wait in a queue, as a metric."""

import asyncio

import nats.errors
import structlog
from prometheus_client import Gauge

from imaging_services.adapters.nats.relay_places import RelayPlace

log = structlog.get_logger(__name__)

WAITING = Gauge(
    "imaging_relay_waiting",
    "messages of a relay's queue that are not done yet, those at work included",
    ["channel", "domain", "priority"],
)
_EVERY = 15.0  # seconds


class Depth:
    """Of one queue; ``domain`` is empty for the own one."""

    def __init__(self, place: RelayPlace, stream: str, *, urgent: bool) -> None:
        self._place, self._stream = place, stream
        self._labels = (place.subjects.channel, place.domain or "", "urgent" if urgent else "normal")

    async def measure(self) -> None:
        """Until cancelled; then it is no longer known here."""
        gauge = WAITING.labels(*self._labels)
        try:
            while True:
                try:
                    info = await self._place.js.consumer_info(self._stream, self._place.worker)
                except (nats.errors.Error, OSError) as error:
                    log.debug("depth of a relay's queue not read", stream=self._stream, error=repr(error))
                else:
                    gauge.set((info.num_pending or 0) + (info.num_ack_pending or 0))
                await asyncio.sleep(_EVERY)
        finally:
            WAITING.remove(*self._labels)
