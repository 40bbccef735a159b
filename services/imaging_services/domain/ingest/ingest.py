"""Taking in one instance: bytes → spool → header → storage space → ``ImageStoredEvent``.

Called by the DIMSE ingestion and by STOW-RS. When ``receive`` returns, the instance is safe: its object is durable and
the event processor has recorded it. Whatever it raises, nothing of the instance is half-stored, and sending it again
is safe: key, object and event follow from the bytes alone.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog

from imaging_services.domain.dicom.elements import Header
from imaging_services.domain.dicom.uids import clean_uid
from imaging_services.domain.errors import Conflict, DataSetMismatch, ObjectDeleted
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.ingest.announcement import Provenance, StoredObject, image_stored
from imaging_services.domain.ingest.heading import Heading, complete_heading, take_heading
from imaging_services.domain.manifest.deletion import object_key
from imaging_services.domain.ports import EventSink, ObjectStore, Spool, Spools

log = structlog.get_logger(__name__)

_MOST_DELETIONS = 1000


@dataclass(frozen=True, slots=True)
class Expected:
    """What the request says of the instance: the C-STORE command's UIDs, or the study of a STOW-RS resource."""

    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Ingested:
    """A stored instance. ``digest`` is the hex SHA-256 of the Part 10 file, ``size`` its length in bytes."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax: str
    digest: str
    key: str
    size: int


BeforeAnnounce = Callable[[Ingested], Awaitable[None]]
Identified = Callable[[str, str], None]
Inspect = Callable[[Heading, int], None]
IsUrgent = Callable[[Header], bool]
Announcement = Callable[[StoredObject, Heading, Provenance], CloudEvent]


class Ingest:
    """Stores instances in one storage space and announces them.

    ``provider`` is ``PROVIDER_NAME``, ``source`` the CloudEvents source, the WADO endpoints base URLs ending in
    ``/wado-rs``.
    """

    def __init__(
        self,
        store: ObjectStore,
        sink: EventSink,
        spools: Spools,
        *,
        provider: str,
        source: str,
        wado_internal: str | None = None,
        wado_external: str | None = None,
    ) -> None:
        self._space = store
        self._sink = sink
        self._spools = spools
        self._provenance = Provenance(
            provider=provider,
            source=source,
            bucket_name=store.bucket_name,
            wado_internal=wado_internal,
            wado_external=wado_external,
        )

    @property
    def wado_external(self) -> str | None:
        """Base URL from which peers retrieve, ending in ``/wado-rs``."""
        return self._provenance.wado_external

    @property
    def spools(self) -> Spools:
        """Where instances wait until they are stored."""
        return self._spools

    async def receive(
        self,
        blocks: AsyncIterable[bytes],
        *,
        transfer_syntax: str,
        expected: Expected | None = None,
        before_announce: BeforeAnnounce | None = None,
        identified: Identified | None = None,
        inspect: Inspect | None = None,
        accepted_at: datetime | None = None,
        is_urgent: IsUrgent | None = None,
    ) -> Ingested:
        """Store the data set that arrives as ``blocks`` (without file meta) and return when it is safe.

        ``before_announce`` runs when the object is stored and before the event is handed in; ``identified`` is
        called with SOP Class and SOP Instance UID as soon as they have been read, ``inspect`` with the whole header
        and the file's size before it is stored. ``accepted_at`` is when the instance was taken over from its
        sender, when that was some time ago; ``is_urgent`` says of the whole header whether the instance's events
        overtake others, and is called once. Raises ``NotDicom``, ``MissingIdentifier``, ``DataSetMismatch``, what the
        store and the sink raise, ``OutOfResources`` when the spool's disk is full, and whatever ``blocks`` raises.
        """
        iterator = aiter(blocks)
        heading = await take_heading(iterator, transfer_syntax)
        if identified is not None:
            identified(heading.sop_class_uid, heading.sop_instance_uid)
        _check(heading, expected)
        async with self._spools.open() as spool:
            await _fill(spool, heading, iterator)
            heading = await complete_heading(heading, await spool.body())
            _check(heading, expected)
            _report(heading, spool.size)
            if inspect is not None:
                inspect(heading, spool.size)
            urgent = is_urgent is not None and is_urgent(heading.header)
            announcement = partial(image_stored, accepted_at=accepted_at, urgent=urgent)
            return await self._store(spool, heading, before_announce, announcement)

    async def _store(
        self, spool: Spool, heading: Heading, before_announce: BeforeAnnounce | None, announcement: Announcement
    ) -> Ingested:
        """Store and announce; under another name when the one that these bytes had was deleted."""
        digest = await spool.digest()
        for generation in range(_MOST_DELETIONS):
            stored = StoredObject(key=object_key(digest, generation), size=spool.size, digest=digest)
            with contextlib.suppress(ObjectDeleted):
                return await self._announce(spool, stored, heading, before_announce, announcement)
        raise Conflict(f"{heading.sop_instance_uid} has been deleted {_MOST_DELETIONS} times with the same bytes")

    async def _announce(
        self,
        spool: Spool,
        stored: StoredObject,
        heading: Heading,
        before_announce: BeforeAnnounce | None,
        announcement: Announcement,
    ) -> Ingested:
        ingested = Ingested(
            study_instance_uid=heading.study_instance_uid,
            series_instance_uid=heading.series_instance_uid,
            sop_instance_uid=heading.sop_instance_uid,
            sop_class_uid=heading.sop_class_uid,
            transfer_syntax=heading.transfer_syntax,
            digest=stored.digest,
            key=stored.key,
            size=stored.size,
        )
        # No HEAD first: a PUT of the same bytes under the same key changes nothing, and every new instance saves
        # a round trip.
        async with _under_way(self._space.put(stored.key, await spool.body())):
            event = announcement(stored, heading, self._provenance)
        if before_announce is not None:
            await before_announce(ingested)
        await self._sink.send(event)
        return ingested


@contextlib.asynccontextmanager
async def _under_way(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Have the work done while the block runs, which must not wait; it is done, or has failed, at the end of the block,
    and is cancelled with it."""
    task = asyncio.create_task(work)
    try:
        await asyncio.sleep(0)  # it gets as far as its first wait, which is for the storage space
        yield
        await task
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _fill(spool: Spool, heading: Heading, rest: AsyncIterator[bytes]) -> None:
    await spool.write(heading.meta)
    await spool.write(heading.head)
    if not heading.ended:
        async for block in rest:
            await spool.write(block)


def _check(heading: Heading, expected: Expected | None) -> None:
    """Raise ``DataSetMismatch`` when a UID of the request differs; one that is not known yet is checked later."""
    if expected is None:
        return
    for name, wanted, found in (
        ("SOPClassUID", expected.sop_class_uid, heading.sop_class_uid),
        ("SOPInstanceUID", expected.sop_instance_uid, heading.sop_instance_uid),
        ("StudyInstanceUID", expected.study_instance_uid, heading.study_instance_uid),
    ):
        if wanted is not None and found and clean_uid(wanted) != found:
            raise DataSetMismatch(f"{name} {found} of the data set is not the request's {clean_uid(wanted)}")


def _report(heading: Heading, size: int) -> None:
    """Log what is wrong with an instance that is kept all the same."""
    if heading.transfer_syntax != heading.declared:
        log.warning(
            "data set in another transfer syntax than declared",
            sop_instance_uid=heading.sop_instance_uid,
            declared=heading.declared,
            recorded=heading.transfer_syntax,
        )
    if heading.header.truncated:
        log.warning("data set ends within an element", sop_instance_uid=heading.sop_instance_uid)
    end = heading.header.pixel_data_end
    if end is not None and not heading.encoding.deflated and end > size - len(heading.meta):
        log.warning("pixel data shorter than its length", sop_instance_uid=heading.sop_instance_uid)
