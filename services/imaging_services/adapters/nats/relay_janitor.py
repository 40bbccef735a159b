"""Removing objects that no message names: left by a crash between an upload and its message, or after an ack."""

import asyncio
import time

import structlog
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.relay_objects import ObjectBucket, age_of
from imaging_services.domain.errors import RetryableError
from imaging_services.domain.relay.subjects import RelaySubjects

log = structlog.get_logger(__name__)

_LISTING = 100_000  # subjects that one STREAM.INFO answer holds


class Janitor:
    """Sweeps one bucket. An object is removed when it looked old and unnamed at two sweeps, ``apart`` seconds from each
    other at least by this process's own clock: names carry the time of whoever made them, clocks differ and jump, and
    what is being uploaded is not named yet."""

    def __init__(self, js: JetStreamContext, subjects: RelaySubjects, max_age: float, timeout: float) -> None:
        self._js, self._subjects, self._max_age = js, subjects, max_age
        self._bucket = ObjectBucket(js, subjects.bucket, timeout)
        self._suspected: dict[str, float] = {}

    async def sweep(self, apart: float) -> int:
        """Remove objects older than the greatest age that no queue and no dead letter names; returns how many. Raises a
        RetryableError."""
        now, unnamed = time.monotonic(), await self._unnamed()
        self._suspected = {name: self._suspected.get(name, now) for name in unnamed}
        certain = [name for name, since in self._suspected.items() if since <= now - apart]
        for name in certain:
            await self._bucket.discard(name)
            del self._suspected[name]
        return len(certain)

    async def keep_clean(self) -> None:
        """Sweep several times in each greatest age until cancelled."""
        every = max(self._max_age / 10, 1)
        while True:
            await asyncio.sleep(every)
            try:
                removed = await self.sweep(every / 2)
            except RetryableError as error:
                log.info("relay objects not swept", bucket=self._subjects.bucket, error=str(error))
            else:
                if removed:
                    log.info("unreferenced relay objects removed", bucket=self._subjects.bucket, count=removed)

    async def _unnamed(self) -> set[str]:
        subjects = self._subjects
        old = {name for name in await self._bucket.names() if age_of(name) > self._max_age}
        if not old:
            return old
        # A message moves between them at any time, by giving up and by redriving, and is written to its new place
        # before it leaves the old one: looking at one of them twice sees it in either.
        for stream, subject in (
            (subjects.dead_letter_stream, subjects.dead_letters("*")),
            (subjects.stream, subjects.store("*", "*")),
            (subjects.urgent_stream, subjects.urgent("*", "*")),
            (subjects.dead_letter_stream, subjects.dead_letters("*")),
        ):
            old -= await _named(self._js, stream, subject)
        return old


async def _named(js: JetStreamContext, stream: str, subject: str) -> set[str]:
    with nats_errors("listing the relay's objects in use"):
        try:
            state = (await js.stream_info(stream, subjects_filter=subject)).state
        except NotFoundError:  # not every domain has each of them
            return set()
    names = {name.rpartition(".")[2] for name in (state.subjects or {})}
    if len(names) >= _LISTING:
        raise RetryableError(f"more than {_LISTING} objects in use in {stream}, the listing is cut short")
    return names
