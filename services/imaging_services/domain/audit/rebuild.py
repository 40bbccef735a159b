"""Making the manifest of a storage space anew, from its objects alone.

They are read in the order in which they were written, so that of two versions of an instance the later one stays, and
what several instances say of their study is told by the same one as before.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from imaging_services.domain.audit.merge import closing, going_on, in_chunks
from imaging_services.domain.audit.stored_header import stored_heading
from imaging_services.domain.audit.turns import each, first_of_ours
from imaging_services.domain.errors import InvalidInput, NotFound, ObjectDeleted, PermanentError, Superseded
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.ingest.announcement import Provenance, StoredObject, image_stored
from imaging_services.domain.manifest.deletion import digest_of
from imaging_services.domain.ports import ObjectInfo, ObjectStore, Spools

log = structlog.get_logger(__name__)

BATCH = 500
"""Instances that are recorded in one transaction."""
_LISTED_AT_ONCE = 1000
_WAITING_BATCHES = 1


Batches = asyncio.Queue[list[tuple[ObjectInfo, CloudEvent]] | None]


class Listing(Protocol):
    """Keeps a listing, and gives it in another order."""

    async def add(self, objects: Sequence[ObjectInfo]) -> None:
        """Some more."""
        ...

    def oldest_first(self, size: int, since: datetime | None = None) -> AsyncIterator[list[ObjectInfo]]:
        """So many at a time, those changed at ``since`` or later, by the time of their last change."""
        ...


class Recorder(Protocol):
    """Records events as the event processor does."""

    async def record(self, events: Sequence[CloudEvent]) -> list[PermanentError | None]:
        """See ``Manifest.record``."""
        ...


@dataclass(slots=True)
class Progress:
    """How far a rebuild is. ``position``: everything written before this moment is recorded."""

    position: datetime | None = None
    objects: int = 0
    foreign: int = 0
    done: int = 0
    recorded: int = 0
    left_out: int = 0
    """Earlier versions of instances, and objects of deleted ones."""
    failed: int = 0


class Rebuild:
    """One rebuild. ``recorder`` None: headers are read, nothing is recorded. ``since``: objects that were written
    before are passed over. ``failed`` hears of each object that cannot be recorded, with the reason; ``told`` of each
    step."""

    def __init__(
        self,
        space: ObjectStore,
        listing: Listing,
        spools: Spools,
        provenance: Provenance,
        recorder: Recorder | None,
        *,
        since: datetime | None = None,
        at_once: int = 32,
        failed: Callable[[str, str], None],
        told: Callable[[Progress], None],
    ) -> None:
        self._space, self._listing, self._spools = space, listing, spools
        self._provenance, self._recorder = provenance, recorder
        self._since, self._at_once = since, at_once
        self._failed, self._told = failed, told
        self.progress = Progress(position=since)

    async def run(self) -> Progress:
        """List, read, record. Raises what the space and the manifest raise; a later rebuild may go on at the
        ``position``."""
        async with closing(going_on(self._space.list, lambda info: info.key, "")) as objects:
            async for page in in_chunks(objects, _LISTED_AT_ONCE):
                await self._list(page)
        batches: Batches = asyncio.Queue(_WAITING_BATCHES)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(batches))
                tasks.create_task(self._record(batches))
        except BaseExceptionGroup as group:
            raise first_of_ours(group) from group
        return self.progress

    async def _list(self, page: Sequence[ObjectInfo]) -> None:
        ours = [info for info in page if digest_of(info.key)]
        self.progress.foreign += len(page) - len(ours)
        ours = [info for info in ours if self._since is None or info.last_modified >= self._since]
        self.progress.objects += len(ours)
        await self._listing.add(ours)
        self._told(self.progress)

    async def _read(self, batches: Batches) -> None:
        """Headers of one batch while the one before is recorded."""
        async for chunk in self._listing.oldest_first(BATCH, self._since):
            events = await self._events(chunk)
            await batches.put([(info, events[info.key]) for info in chunk if info.key in events])
        await batches.put(None)

    async def _events(self, chunk: Sequence[ObjectInfo]) -> dict[str, CloudEvent]:
        events: dict[str, CloudEvent] = {}

        async def read(info: ObjectInfo) -> None:
            try:
                events[info.key] = await self._event(info)
            except InvalidInput as error:
                self._refuse(info, error)
            except NotFound:
                log.info("object removed meanwhile", key=info.key)

        await each(self._at_once, chunk, read)
        return events

    async def _event(self, info: ObjectInfo) -> CloudEvent:
        heading = await stored_heading(self._space, info, self._spools)
        stored = StoredObject(info.key, info.size, digest_of(info.key) or "")
        return image_stored(stored, heading, self._provenance, info.last_modified)

    async def _record(self, batches: Batches) -> None:
        while (batch := await batches.get()) is not None:
            if self._recorder is not None and batch:
                results = await self._recorder.record([event for _, event in batch])
                for (info, _), refused in zip(batch, results, strict=True):
                    if isinstance(refused, Superseded | ObjectDeleted):
                        self.progress.left_out += 1
                    elif refused is not None:
                        self._refuse(info, refused)
                    else:
                        self.progress.recorded += 1
            self.progress.done += len(batch)
            self.progress.position = batch[-1][0].last_modified if batch else self.progress.position
            self._told(self.progress)

    def _refuse(self, info: ObjectInfo, error: PermanentError) -> None:
        self.progress.failed += 1
        self._failed(info.key, str(error))
