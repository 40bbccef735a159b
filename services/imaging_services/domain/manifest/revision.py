"""Study revisions: what a quiet study announces, and what changed since the revision before."""

from collections.abc import Iterable
from dataclasses import dataclass

from imaging_services.domain.events.envelope import PRIORITY, STUDY_REVISION, URGENT, CloudEvent, event_id
from imaging_services.domain.events.payloads import (
    ChangeSet,
    Element,
    RevisionInstance,
    RevisionSeries,
    RevisionStudy,
    StudyRevision,
)
from imaging_services.domain.manifest.attributes import ATTRIBUTES, MODALITIES_IN_STUDY, STUDY_DATE
from imaging_services.domain.manifest.header_elements import Attributes


@dataclass(frozen=True, slots=True)
class InstanceState:
    """A recorded instance and the revisions at which it came, last changed and went; None: never."""

    sop_instance_uid: str
    sop_class_uid: str
    number: int | None
    initial_revision: int
    modified_revision: int | None = None
    deleted_revision: int | None = None


@dataclass(frozen=True, slots=True)
class SeriesState:
    """A recorded series with all its instances, those that are gone too."""

    series_instance_uid: str
    modality: str | None
    number: int | None
    provider: str
    wado_external: str | None
    attributes: Attributes
    instances: tuple[InstanceState, ...]


def deleted_series(series_instance_uid: str, provider: str, instances: Iterable[InstanceState]) -> SeriesState:
    """A series as far as its instances are gone: it has nothing to tell but them."""
    return SeriesState(series_instance_uid, None, None, provider, None, {}, tuple(instances))


def study_revision(
    source: str,
    study_instance_uid: str,
    revision: int,
    attributes: Attributes,
    series: Iterable[SeriesState],
    *,
    urgent: bool = False,
) -> CloudEvent:
    """The ``StudyRevisionEvent`` of this revision; series and instances in order of number, those without last."""
    ordered = sorted(series, key=lambda one: (one.number is None, one.number or 0, one.series_instance_uid))
    modalities = sorted({one.modality for one in ordered if one.modality and _present(one)})
    announced = {MODALITIES_IN_STUDY: modalities, **attributes} if modalities else attributes
    study = RevisionStudy(
        studyInstanceUID=study_instance_uid,
        studyDate=next(iter(attributes.get(STUDY_DATE, [])), None),
        attributes=elements(announced),
        series=[_series(study_instance_uid, one) for one in ordered if _present(one)],
    )
    data = StudyRevision(revision=revision, study=study, changeSet=change_set(revision, ordered))
    return CloudEvent(
        STUDY_REVISION,
        source,
        event_id(STUDY_REVISION, study_instance_uid, revision),
        data.model_dump_json().encode(),
        extensions={PRIORITY: URGENT} if urgent else {},
    )


def change_set(revision: int, series: Iterable[SeriesState]) -> ChangeSet:
    """What changed since the revision before, told from the rows' revision numbers alone: they are given under the
    study's lock, so that an instance which is recorded while a revision is built belongs to the next one."""
    changes: dict[str, list[str]] = {"additions": [], "deletions": [], "modifications": []}
    for one in series:
        for instance in _by_number(one.instances):
            kind = _change(revision, instance)
            if kind:
                changes[kind].append(f"{one.series_instance_uid}/{instance.sop_instance_uid}")
    again = set(changes["additions"]) & set(changes["deletions"])  # deleted, and stored again before it was announced
    if again:
        changes["modifications"] += sorted(again)
        changes["additions"] = [one for one in changes["additions"] if one not in again]
        changes["deletions"] = [one for one in changes["deletions"] if one not in again]
    return ChangeSet(**changes)


def _change(revision: int, instance: InstanceState) -> str | None:
    if instance.deleted_revision is not None:
        # What came and went between two revisions was never announced.
        announced = instance.initial_revision < revision
        return "deletions" if announced and instance.deleted_revision == revision else None
    if instance.initial_revision == revision:
        return "additions"
    return "modifications" if instance.modified_revision == revision else None


def elements(attributes: Attributes) -> list[Element]:
    """Recorded attributes as the events carry them, in tag order."""
    return [
        Element(
            group=tag[:4],
            element=tag[4:],
            vr=ATTRIBUTES[tag].vr,
            value=values[0],
            values=values if len(values) > 1 else None,
        )
        for tag, values in sorted(attributes.items())
        if values and ATTRIBUTES[tag].vr != "SQ"
    ]


def _series(study_instance_uid: str, series: SeriesState) -> RevisionSeries:
    base = (series.wado_external or "").rstrip("/")
    return RevisionSeries(
        seriesInstanceUID=series.series_instance_uid,
        modality=series.modality,
        providerName=series.provider,
        number=series.number,
        endpoint=f"{base}/studies/{study_instance_uid}/series/{series.series_instance_uid}",
        attributes=elements(series.attributes),
        instances=[
            RevisionInstance(sopInstanceUID=one.sop_instance_uid, sopClassUID=one.sop_class_uid, number=one.number)
            for one in _by_number(series.instances)
            if one.deleted_revision is None
        ],
    )


def _present(series: SeriesState) -> bool:
    return any(instance.deleted_revision is None for instance in series.instances)


def _by_number(instances: Iterable[InstanceState]) -> list[InstanceState]:
    return sorted(instances, key=lambda one: (one.number is None, one.number or 0, one.sop_instance_uid))
