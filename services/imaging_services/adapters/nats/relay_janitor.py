"""Removing objects that no message names: left by a crash between an upload and its message, or after an ack."""

import asyncio

import structlog
from nats.js import JetStreamContext

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.relay_objects import ObjectBucket, age_of
from imaging_services.domain.errors import RetryableError
from imaging_services.domain.relay.subjects import RelaySubjects

log = structlog.get_logger(__name__)

_LISTING = 100_000  # subjects that one STREAM.INFO answer holds


async def sweep(js: JetStreamContext, subjects: RelaySubjects, max_age: float, timeout: float) -> int:
    """Remove objects older than ``max_age`` seconds that neither work queue nor dead letters name; returns how many.

    Raises a RetryableError.
    """
    bucket = ObjectBucket(js, subjects.bucket, timeout)
    old = {name for name in await bucket.names() if age_of(name) > max_age}
    if not old:
        return 0
    # A message moves between the two at any time, by giving up and by redriving, and is written to its new place
    # before it leaves the old one: looking at one of them twice sees it in either.
    for stream, subject in (
        (subjects.dead_letter_stream, subjects.dead_letters("*")),
        (subjects.stream, subjects.store("*", "*")),
        (subjects.dead_letter_stream, subjects.dead_letters("*")),
    ):
        old -= await _named(js, stream, subject)
    for name in old:
        await bucket.discard(name)
    return len(old)


async def keep_clean(js: JetStreamContext, subjects: RelaySubjects, max_age: float, timeout: float) -> None:
    """Sweep several times in each ``max_age`` until cancelled."""
    while True:
        await asyncio.sleep(max(max_age / 10, 1))
        try:
            removed = await sweep(js, subjects, max_age, timeout)
        except RetryableError as error:
            log.info("relay objects not swept", bucket=subjects.bucket, error=str(error))
        else:
            if removed:
                log.info("unreferenced relay objects removed", bucket=subjects.bucket, count=removed)


async def _named(js: JetStreamContext, stream: str, subject: str) -> set[str]:
    with nats_errors("listing the relay's objects in use"):
        state = (await js.stream_info(stream, subjects_filter=subject)).state
    names = {name.rpartition(".")[2] for name in (state.subjects or {})}
    if len(names) >= _LISTING:
        raise RetryableError(f"more than {_LISTING} objects in use in {stream}, the listing is cut short")
    return names
