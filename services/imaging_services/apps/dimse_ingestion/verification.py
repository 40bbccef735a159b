"""Whether instances are safe: recorded in the manifest, with the object in the storage space (PS3.4 annex J.3.4)."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from imaging_services.apps.dimse_ingestion.transactions import Reference, Verdict
from imaging_services.domain.dicom.dimse import Status
from imaging_services.domain.manifest.attributes import SERIES_INSTANCE_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID
from imaging_services.domain.manifest.query import DicomJson, InstanceLocation, Level, Query, Scope
from imaging_services.domain.ports import ManifestQuery, ObjectStore

_BATCH = 200
_AT_ONCE = 16
_UNIQUE = frozenset({STUDY_INSTANCE_UID, SERIES_INSTANCE_UID})

Present = dict[str, tuple[str, str]]
"""Study and series of instances that are recorded, by SOP Instance UID."""


class Verifier:
    """Looks instances of one storage space up; at most 16 objects at a time are asked for, of all transactions."""

    def __init__(self, manifest: ManifestQuery, space: ObjectStore, *, provider: str | None) -> None:
        self._manifest, self._space, self._provider = manifest, space, provider
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def present(self, references: Sequence[Reference]) -> Present:
        """Those that are recorded, looked up in the least costly way. Raises a RetryableError."""
        present: Present = {}
        for batch in _batches(references):
            wanted = tuple(sorted({one.sop_instance_uid for one in batch}))
            query = Query(
                level=Level.IMAGE, provider=self._provider, filters={SOP_INSTANCE_UID: wanted}, include=_UNIQUE
            )
            for one in await self._manifest.search(query):
                present[_value(one, SOP_INSTANCE_UID)] = (
                    _value(one, STUDY_INSTANCE_UID),
                    _value(one, SERIES_INSTANCE_UID),
                )
        return present

    async def last_arrival(self, present: Present) -> datetime | None:
        """When the last of these was recorded; None when there is none. Raises a RetryableError."""
        located = await self._locate(present)
        return max((one.last_modified for one in located.values()), default=None)

    async def verify(self, references: Sequence[Reference], present: Present | None = None) -> Verdict:
        """The verdict in the references' order. Raises a RetryableError while manifest or space cannot be asked."""
        located = await self._locate(await self.present(references) if present is None else present)
        reasons: list[int] = []
        for batch in _batches(references):
            reasons += await self._reasons(batch, located)
        pairs = list(zip(references, reasons, strict=True))
        safe = tuple(reference for reference, reason in pairs if reason == Status.SUCCESS)
        return Verdict(safe, tuple(pair for pair in pairs if pair[1] != Status.SUCCESS))

    async def _locate(self, present: Present) -> dict[str, InstanceLocation]:
        found: dict[str, InstanceLocation] = {}
        for study_uid, series_uid in set(present.values()):
            for location in await self._manifest.locate(Scope(study_uid, series_uid, provider=self._provider)):
                if location.sop_instance_uid in present:
                    found[location.sop_instance_uid] = location
        return found

    async def _reasons(self, batch: Iterable[Reference], located: dict[str, InstanceLocation]) -> list[int]:
        try:
            async with asyncio.TaskGroup() as tasks:
                checks = [tasks.create_task(self._reason(one, located.get(one.sop_instance_uid))) for one in batch]
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        return [check.result() for check in checks]

    async def _reason(self, reference: Reference, location: InstanceLocation | None) -> int:
        """Failure Reason of PS3.3 section C.14.1.1, or success."""
        if location is None:
            return Status.NO_SUCH_INSTANCE
        if location.sop_class_uid != reference.sop_class_uid:
            return Status.CLASS_INSTANCE_CONFLICT
        async with self._turns:
            info = await self._space.head(location.object_name)
        if info is None:
            return Status.NO_SUCH_INSTANCE
        whole = location.size is None or location.size == info.size
        return Status.SUCCESS if whole else Status.PROCESSING_FAILURE


def _value(match: DicomJson, tag: str) -> str:
    return str(match[tag]["Value"][0])


def _batches(references: Sequence[Reference]) -> Iterator[Sequence[Reference]]:
    for start in range(0, len(references), _BATCH):
        yield references[start : start + _BATCH]
