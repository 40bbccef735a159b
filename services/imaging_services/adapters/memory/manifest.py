"""The manifest in memory: the PostgreSQL adapter's twin for tests and trials."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice

from imaging_services.adapters.memory.manifest_records import (
    MemoryInstance,
    MemorySeries,
    MemoryStudy,
    instance_record,
    series_record,
    study_record,
)
from imaging_services.domain.errors import Conflict, InvalidInput, PermanentError
from imaging_services.domain.events.envelope import EVENT_TYPES, CloudEvent
from imaging_services.domain.manifest.attributes import PATIENT_INSTANCES, PATIENT_SERIES, PATIENT_STUDIES
from imaging_services.domain.manifest.matching import Filter, matches_all, parse_filters
from imaging_services.domain.manifest.query import DicomJson, InstanceLocation, Level, Query, Scope
from imaging_services.domain.manifest.recording import (
    Attributes,
    Recording,
    available_event,
    fill_absent,
    read_event,
    stored_event,
)
from imaging_services.domain.manifest.results import dicom_json, returned_tags
from imaging_services.domain.manifest.revision import InstanceState, SeriesState, study_revision
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
        self._owners: dict[str, str] = {}
        self._associations: dict[str, _Association] = {}
        self._outbox: list[CloudEvent] = []
        self._refused: list[tuple[CloudEvent, str]] = []
        self._turn = asyncio.Lock()
        self._published = 0
        self._serial = 0

    async def record(self, events: Sequence[CloudEvent]) -> list[PermanentError | None]:
        """See ``Manifest.record``."""
        results: list[PermanentError | None] = []
        for event in events:
            try:
                recording = read_event(event)
                follow = [event] if recording is None else self._record(recording)
            except PermanentError as error:
                results.append(error)
            else:
                self._outbox += [one for one in follow if one.type in self._queued_types]
                results.append(None)
        return results

    def _record(self, new: Recording) -> list[CloudEvent]:
        owner = self._owners.setdefault(new.series_instance_uid, new.provider)
        if owner != new.provider:
            raise Conflict(f"series {new.series_instance_uid} belongs to provider {owner!r}, not to {new.provider!r}")
        study = self._studies.get(new.study_instance_uid) or MemoryStudy(new.study_instance_uid, self._next())
        series = study.series.get(new.series_instance_uid) or MemorySeries(new, self._next())
        known = series.instances.get(new.sop_instance_uid)
        if known and known.knows(new):
            return []
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
        endpoint = series.first.wado_internal
        return [stored_event(new, repeats), available_event(new, self._source, endpoint, repeats)]

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    async def revise(self, quiet: timedelta, limit: int = 32) -> int:
        """See ``Manifest.revise``."""
        due = [study for study in self._studies.values() if self._is_due(study, quiet)]
        for study in due[:limit]:
            states = [_state(series) for series in study.series.values()]
            self._outbox.append(study_revision(self._source, study.uid, study.revision, study.attributes, states))
            study.revision += 1
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
        return Counts(len(self._studies), len(series), sum(len(one.instances) for one in series), self._published)

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
        if query.offset < 0 or (query.limit is not None and query.limit < 0):
            raise InvalidInput(f"limit {query.limit} or offset {query.offset} is not a number of results")
        filters = parse_filters(query)
        found = self._patients(query, filters) if query.level is Level.PATIENT else self._matching(query, filters)
        end = None if query.limit is None else query.offset + query.limit
        tags = returned_tags(query)
        return [dicom_json(record, tags) for record in islice(found, query.offset, end)]

    def _matching(self, query: Query, filters: Sequence[Filter]) -> Iterable[Attributes]:
        return (record for record in self._records(query) if matches_all(filters, record))

    def _records(self, query: Query) -> Iterable[Attributes]:
        for study in sorted(self._studies.values(), key=lambda one: -one.serial):
            members = study.in_order(query.provider)
            if not members:
                continue
            of_study = study_record(study, members)
            if query.level in (Level.PATIENT, Level.STUDY):
                yield of_study
                continue
            for series in members:
                of_series = of_study | series_record(series)
                if query.level is Level.SERIES:
                    yield of_series
                else:
                    yield from (of_series | instance_record(instance) for instance in series.in_order())

    def _patients(self, query: Query, filters: Sequence[Filter]) -> Iterable[Attributes]:
        everything = sorted(self._records(query), key=_patient)
        for _, group in groupby(everything, key=_patient):
            studies = list(group)
            totals = {
                PATIENT_STUDIES: [str(len(studies))],
                PATIENT_SERIES: [str(sum(int(one["00201206"][0]) for one in studies))],
                PATIENT_INSTANCES: [str(sum(int(one["00201208"][0]) for one in studies))],
            }
            newest = next((one for one in studies if matches_all(filters, one)), None)
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
