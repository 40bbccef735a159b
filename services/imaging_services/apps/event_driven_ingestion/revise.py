"""Announcing studies that have been quiet."""

import asyncio
from datetime import timedelta

import structlog

from imaging_services.domain.errors import ImagingError
from imaging_services.domain.ports import Manifest

log = structlog.get_logger(__name__)

_AT_ONCE = 32


async def revise_quiet_studies(
    manifest: Manifest, *, quiet: timedelta, every: timedelta, queued: asyncio.Event, stop: asyncio.Event
) -> None:
    """Look for quiet studies ``every`` so often until ``stop``; ``queued`` is set when there is something to
    publish. Any number of processors may do so: the quiet time is in the database."""
    while not stop.is_set():
        try:
            while revised := await manifest.revise(quiet, _AT_ONCE):
                log.info("study revisions made", studies=revised)
                queued.set()
                if stop.is_set():
                    return
        except ImagingError as error:
            log.warning("studies not revised", reason=str(error))
        try:
            await asyncio.wait_for(stop.wait(), every.total_seconds())
        except TimeoutError:
            continue
