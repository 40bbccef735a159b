"""The manifest in memory: the PostgreSQL adapter's twin for tests and trials."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice

from imaging_services.adapters.memory.manifest_records import (
    MemoryDeletions,
    MemoryInstance,
    MemorySeries,
    MemoryStudy,
)
from imaging_services.adapters.memory.manifest_search import behind, study_records
from imaging_services.domain.errors import Conflict, PermanentError
from imaging_services.domain.events.envelope import EVENT_TYPES, CloudEvent, is_urgent
from imaging_services.domain.manifest.attributes import PATIENT_INSTANCES, PATIENT_SERIES, PATIENT_STUDIES
from imaging_services.domain.manifest.deletion import DeletedObject, Deletion
from imaging_services.domain.manifest.header_elements import Attributes
from imaging_services.domain.manifest.matching import Condition, parse_filters
from imaging_services.domain.manifest.paging import require_page
from imaging_services.domain.manifest.query import DicomJson, InstanceLocation, Level, Query, Scope
from imaging_services.domain.manifest.recording import (
    Recording,
    available_event,
    fill_absent,
    read_event,
    stored_event,
)
from imaging_services.domain.manifest.results import dicom_json, returned_tags
from imaging_services.domain.manifest.revision import InstanceState, SeriesState, deleted_series, study_revision
from imaging_services.domain.manifest.values import name_key_columns
from imaging_services.domain.ports import Counts


@dataclass(slots=True)
class _Association:
    expires_at: datetime
    studies: set[str] = field(default_factory=set)
    released: bool = False


class MemoryManifest:
    """``Manifest`` for one process; nothing is kept. Same order and rules as ``adapters/postgres``."""

    def __init__(self, source: str, queued: frozenset[str] = EVENT_TYPES) -> None:
        self._source = source
        self._queued_types = queued
        self._studies: dict[str, MemoryStudy] = {}
        self._deletions = MemoryDeletions()
        self._associations: dict[str, _Association] = {}
        self._outbox: list[CloudEvent] = []
        self._refused: list[tuple[CloudEvent, str]] = []
        self._turn = asyncio.Lock()
        self._published = 0
        self._serial = 0

    async def record(
        self, events: Sequence[CloudEvent], turn: Callable[[], Awaitable[object]] | None = None
    ) -> list[PermanentError | None]:
        """See ``Manifest.record``."""
        if turn:
            await turn()
        results: list[PermanentError | None] = []
        for event in events:
            try:
                read = read_event(event)
                if isinstance(read, Deletion):
                    follow = self._delete(read)
                else:
                    follow = [event] if read is None else self._record(read)
            except PermanentError as error:
                results.append(error)
            else:
                self._outbox += [one for one in follow if one.type in self._queued_types]
                results.append(None)
        return results

    def _record(self, new: Recording) -> list[CloudEvent]:
        owner = self._owner(new.series_instance_uid)
        if owner not in (None, new.provider):
            raise Conflict(f"series {new.series_instance_uid} belongs to provider {owner!r}, not to {new.provider!r}")
        if self._deletions.is_late(new):
            return []
        study = self._studies.get(new.study_instance_uid) or MemoryStudy(new.study_instance_uid, self._next())
        series = study.series.get(new.series_instance_uid) or MemorySeries(new, self._next())
        known = series.instances.get(new.sop_instance_uid)
        if known and known.knows(new):
            return []
        if not study.series:
            study.attributes = {}  # what was known of a study whose instances were all deleted is no more
        self._studies[new.study_instance_uid] = study
        study.series[new.series_instance_uid] = series
        instance = known or MemoryInstance(new, self._next(), study.revision)
        series.instances[new.sop_instance_uid] = instance
        repeats = instance.times_replaced(new.identity)
        if known:
            instance.replace(new, study.revision)
        study.attributes = fill_absent(study.attributes, new.study)
        series.attributes = fill_absent(series.attributes, new.series)
        study.last_recorded = datetime.now(UTC)
        study.urgent |= is_urgent(new.event)
        endpoint = series.first.wado_internal
        return [stored_event(new, repeats), available_event(new, self._source, endpoint, repeats)]

    def _owner(self, series_instance_uid: str) -> str | None:
        found = (study.series.get(series_instance_uid) for study in self._studies.values())
        return next((series.first.provider for series in found if series), None)

    def _delete(self, deletion: Deletion) -> list[CloudEvent]:
        study = self._studies.get(deletion.study_instance_uid)
        if study is None:
            return []
        deleted = [
            study.delete(deletion.provider, one.seriesInstanceUID, one.sopInstanceUID, one.objectName)
            for one in deletion.instances
        ]
        if not any(deleted):
            return []
        for left in filter(None, deleted):
            self._deletions.add(deletion.provider, left)
        study.last_recorded = datetime.now(UTC)
        return [deletion.event]

    async def waiting_objects(self, provider: str, limit: int = 256) -> list[DeletedObject]:
        """See ``DeletedObjects.waiting_objects``."""
        return self._deletions.waiting(provider, self._studies)[:limit]

    async def objects_removed(self, provider: str, objects: Sequence[DeletedObject]) -> None:
        """See ``DeletedObjects.objects_removed``."""
        self._deletions.removed(provider, objects)

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    async def revise(self, quiet: timedelta, limit: int = 32) -> int:
        """See ``Manifest.revise``."""
        due = [study for study in self._studies.values() if self._is_due(study, quiet)]
        for study in due[:limit]:
            states = [_state(series) for series in study.series.values()]
            states += [deleted_series(uid, "", gone) for uid, gone in study.deletions.items()]
            study.deletions = {}
            self._outbox.append(
                study_revision(self._source, study.uid, study.revision, study.attributes, states, urgent=study.urgent)
            )
            study.revision += 1
            study.urgent = False
            study.last_recorded = None
        return len(due[:limit])

    def _is_due(self, study: MemoryStudy, quiet: timedelta) -> bool:
        now = datetime.now(UTC)
        held = any(study.uid in one.studies and one.expires_at > now for one in self._associations.values())
        return study.last_recorded is not None and now - study.last_recorded > quiet and not held

    async def publish_pending(
        self, publish: Callable[[Sequence[CloudEvent]], Awaitable[None]], limit: int = 256
    ) -> int:
        """See ``Manifest.publish_pending``."""
        async with self._turn:
            batch = self._outbox[:limit]
            if not batch:
                return 0
            try:
                await publish(batch)
            except PermanentError:
                await self._publish_singly(batch, publish)
            else:
                self._published += len(batch)
            del self._outbox[: len(batch)]
            return len(batch)

    async def _publish_singly(
        self, batch: list[CloudEvent], publish: Callable[[Sequence[CloudEvent]], Awaitable[None]]
    ) -> None:
        for event in batch:
            try:
                await publish([event])
            except PermanentError as error:
                self._refused.append((event, str(error)))
            else:
                self._published += 1

    async def counts(self) -> Counts:
        """See ``Manifest.counts``."""
        series = [one for study in self._studies.values() for one in study.series.values()]
        studies = sum(bool(study.series) for study in self._studies.values())
        return Counts(studies, len(series), sum(len(one.instances) for one in series), self._published)

    async def hold(self, association_id: str, study_instance_uid: str, lease: timedelta) -> None:
        """See ``StudyHolds.hold``."""
        association = self._associations.setdefault(association_id, _Association(datetime.now(UTC)))
        if not association.released:
            association.studies.add(study_instance_uid)
            association.expires_at = max(association.expires_at, datetime.now(UTC) + lease)

    async def renew(self, association_id: str, lease: timedelta) -> None:
        """See ``StudyHolds.renew``."""
        association = self._associations.get(association_id)
        if association and not association.released:
            association.expires_at = max(association.expires_at, datetime.now(UTC) + lease)

    async def release(self, association_id: str) -> None:
        """See ``StudyHolds.release``."""
        self._associations[association_id] = _Association(datetime.now(UTC), released=True)

    async def locate(self, scope: Scope) -> list[InstanceLocation]:
        """See ``ManifestQuery.locate``."""
        study = self._studies.get(scope.study_instance_uid)
        if study is None:
            return []
        return [
            instance.location
            for series in study.in_order(scope.provider)
            if scope.series_instance_uid in (None, series.uid)
            for instance in series.in_order()
            if scope.sop_instance_uid in (None, instance.recording.sop_instance_uid)
        ]

    async def search(self, query: Query) -> list[DicomJson]:
        """See ``ManifestQuery.search``."""
        require_page(query)
        conditions = parse_filters(query)
        found = self._patients(query, conditions) if query.level is Level.PATIENT else self._matching(query, conditions)
        end = None if query.limit is None else query.offset + query.limit
        tags = returned_tags(query)
        return [dicom_json(record, tags) for record in islice(found, query.offset, end)]

    def _matching(self, query: Query, conditions: Iterable[Condition]) -> Iterable[Attributes]:
        studies = sorted(self._studies.values(), key=lambda one: -one.serial)
        records = (record for study in studies for record in study_records(study, query.provider, query.level))
        return (one.attributes for one in behind(records, query) if one.matches(conditions, query.level))

    def _patients(self, query: Query, conditions: Sequence[Condition]) -> Iterable[Attributes]:
        newest_first = sorted(self._studies.values(), key=lambda one: -one.serial)
        records = (record for study in newest_first for record in study_records(study, query.provider, Level.STUDY))
        everything = sorted(records, key=lambda one: _patient(one.attributes))
        for _, group in groupby(everything, key=lambda one: _patient(one.attributes)):
            members = list(group)
            studies = [one.attributes for one in members]
            totals = {
                PATIENT_STUDIES: [str(len(studies))],
                PATIENT_SERIES: [str(sum(int(one["00201206"][0]) for one in studies))],
                PATIENT_INSTANCES: [str(sum(int(one["00201208"][0]) for one in studies))],
            }
            newest = next((one.attributes for one in members if one.matches(conditions, Level.PATIENT)), None)
            if newest is not None:
                yield newest | (totals if "00100020" in newest else {})


def _patient(record: Attributes) -> tuple[bool, str, bool, str]:
    """Patients in order of PatientID; those without one last, told apart by name."""
    if "00100020" in record:
        return False, record["00100020"][0], False, ""
    name = name_key_columns(record.get("00100010", [""])[0])[0]
    return True, "", name is None, name or ""


def _state(series: MemorySeries) -> SeriesState:
    instances = tuple(
        InstanceState(
            one.recording.sop_instance_uid, one.recording.sop_class_uid, one.number, one.initial, one.modified
        )
        for one in series.instances.values()
    )
    first = series.first
    return SeriesState(
        series.uid, series.modality, series.number, first.provider, first.wado_external, series.attributes, instances
    )
