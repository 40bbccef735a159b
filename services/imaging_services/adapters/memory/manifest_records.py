"""What the in-memory manifest keeps, and its records as the attributes that searches match and return."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from imaging_services.domain.manifest import attributes as known
from imaging_services.domain.manifest.deletion import DeletedObject, is_later_name, object_deleted
from imaging_services.domain.manifest.header_elements import Attributes
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.manifest.recording import InstanceKey, Recording, superseded_by
from imaging_services.domain.manifest.revision import InstanceState
from imaging_services.domain.manifest.values import whole_number

Objects = dict[str, datetime]
"""Names of objects, and when the versions of an instance in them were accepted."""


@dataclass(frozen=True, slots=True)
class Left:
    """An instance that was deleted, and the objects that it has left in a bucket."""

    instance: InstanceKey
    bucket_name: str | None
    objects: Objects


def _number(attributes: Attributes, tag: str) -> int | None:
    return whole_number(attributes[tag][0]) if tag in attributes else None


@dataclass(slots=True)
class MemoryInstance:
    """An instance: its last recording, and the revisions that announce it."""

    recording: Recording
    serial: int
    initial: int
    modified: int | None = None
    replaced: list[tuple[str, datetime]] = field(default_factory=list)
    left_objects: Objects = field(default_factory=dict)
    accepted_at: datetime = field(init=False)
    last_modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.accepted_at = self.recording.accepted_at or datetime.now(UTC)

    def knows(self, new: Recording) -> bool:
        """These bytes are recorded, or were before newer ones. Raises ``Superseded`` for older ones that never were."""
        accepted_at = new.accepted_at
        if self.recording.identity == new.identity:
            self.accepted_at = max(self.accepted_at, accepted_at or self.accepted_at)
            if is_later_name(new.object_name, self.recording.object_name):
                self.recording = replace(self.recording, object_name=new.object_name)
            return True
        if accepted_at is None or accepted_at >= self.accepted_at:
            return False
        if any(identity == new.identity and at >= accepted_at for identity, at in self.replaced):
            return True
        self.left_objects.setdefault(new.object_name, accepted_at)  # its object is there all the same
        raise superseded_by(new.sop_instance_uid, self.accepted_at)

    def times_replaced(self, identity: str) -> int:
        """How often these bytes were left behind."""
        return sum(one == identity for one, _ in self.replaced)

    def replace(self, new: Recording, revision: int) -> None:
        """Other bytes under the same UIDs."""
        self.replaced.append((self.recording.identity, self.accepted_at))
        self.left_objects[self.recording.object_name] = self.accepted_at
        self.recording = new
        self.accepted_at = new.accepted_at or datetime.now(UTC)
        self.modified = revision
        self.last_modified = datetime.now(UTC)

    @property
    def number(self) -> int | None:
        """InstanceNumber."""
        return _number(self.recording.instance, known.INSTANCE_NUMBER)

    @property
    def location(self) -> InstanceLocation:
        """Where its object lies."""
        one = self.recording
        return InstanceLocation(
            *one.key,
            one.sop_class_uid,
            one.transfer_syntax_uid,
            one.provider,
            one.object_name,
            one.bucket_name,
            one.size,
            one.digest,
            one.pixel_data_offset,
            self.last_modified,
        )


@dataclass(slots=True)
class MemorySeries:
    """A series, with the recording it was first seen by."""

    first: Recording
    serial: int
    attributes: Attributes = field(default_factory=dict)
    instances: dict[str, MemoryInstance] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """Series Instance UID."""
        return self.first.series_instance_uid

    @property
    def number(self) -> int | None:
        """SeriesNumber."""
        return _number(self.attributes, known.SERIES_NUMBER)

    @property
    def modality(self) -> str | None:
        """Modality."""
        return self.attributes.get(known.MODALITY, [None])[0]

    def in_order(self) -> list[MemoryInstance]:
        """Instances by number, those without last."""
        return sorted(self.instances.values(), key=lambda one: (one.number is None, one.number or 0, one.serial))


@dataclass(slots=True)
class MemoryStudy:
    """A study; ``last_recorded`` is set while it waits for its next revision, which may be ``urgent``."""

    uid: str
    serial: int
    attributes: Attributes = field(default_factory=dict)
    series: dict[str, MemorySeries] = field(default_factory=dict)
    revision: int = 0
    last_recorded: datetime | None = None
    urgent: bool = False
    deletions: dict[str, list[InstanceState]] = field(default_factory=dict)

    def delete(self, provider: str, series_instance_uid: str, sop_instance_uid: str, object_name: str) -> Left | None:
        """Delete an instance that lies in this object, when there is one."""
        series = self.series.get(series_instance_uid)
        instance = series.instances.get(sop_instance_uid) if series and series.first.provider == provider else None
        if series is None or instance is None or instance.recording.object_name != object_name:
            return None
        del series.instances[sop_instance_uid]
        if not series.instances:
            del self.series[series_instance_uid]
        gone = InstanceState(sop_instance_uid, "", None, instance.initial, deleted_revision=self.revision)
        self.deletions.setdefault(series_instance_uid, []).append(gone)
        objects = dict(instance.left_objects) | {object_name: instance.accepted_at}
        return Left(instance.recording.key, instance.recording.bucket_name, objects)

    def lies_in(self, instance: InstanceKey, bucket_name: str | None, object_name: str) -> bool:
        """The instance lies in the object, or has left it behind."""
        _, series_instance_uid, sop_instance_uid = instance
        series = self.series.get(series_instance_uid)
        one = series.instances.get(sop_instance_uid) if series else None
        if one is None or one.recording.bucket_name != bucket_name:
            return False
        return object_name == one.recording.object_name or object_name in one.left_objects

    def in_order(self, provider: str | None) -> list[MemorySeries]:
        """The provider's series (None: all) by number, those without last."""
        mine = [one for one in self.series.values() if provider is None or one.first.provider == provider]
        return sorted(mine, key=lambda one: (one.number is None, one.number or 0, one.serial))


class MemoryDeletions:
    """The names of deleted objects, none of which is used again."""

    def __init__(self) -> None:
        self._accepted: dict[tuple[str, str], datetime] = {}
        self._waiting: dict[tuple[str, str], datetime] = {}
        self._left: dict[tuple[str, str], Left] = {}

    def add(self, provider: str, left: Left) -> None:
        """An instance that was deleted now."""
        for name, accepted_at in left.objects.items():
            self._accepted.setdefault((provider, name), accepted_at)
            self._waiting[provider, name] = datetime.now(UTC)
            self._left.setdefault((provider, name), left)

    def is_late(self, new: Recording) -> bool:
        """What has been deleted is delivered once more. Raises ``ObjectDeleted`` when it is stored anew."""
        key = new.provider, new.object_name
        if key not in self._accepted:
            return False
        self._waiting[key] = datetime.now(UTC)
        if new.accepted_at is not None and new.accepted_at <= self._accepted[key]:
            return True
        raise object_deleted(new.sop_instance_uid)

    def waiting(self, provider: str, studies: Mapping[str, MemoryStudy]) -> list[DeletedObject]:
        """The provider's objects that are to be removed: not one that has become another provider's, by the same bytes
        in the same bucket."""
        return [
            DeletedObject(name, since)
            for (owner, name), since in self._waiting.items()
            if owner == provider and not self._in_use(studies, self._left[owner, name], name)
        ]

    def _in_use(self, studies: Mapping[str, MemoryStudy], left: Left, object_name: str) -> bool:
        study = studies.get(left.instance[0])
        return study is not None and study.lies_in(left.instance, left.bucket_name, object_name)

    def removed(self, provider: str, objects: Iterable[DeletedObject]) -> None:
        """They are no longer there."""
        for one in objects:
            if self._waiting.get((provider, one.object_name)) == one.waiting_since:
                del self._waiting[provider, one.object_name]


def study_record(study: MemoryStudy, members: Iterable[MemorySeries]) -> Attributes:
    """A study with the counts of these series."""
    series = list(members)
    instances = [one for member in series for one in member.instances.values()]
    return study.attributes | {
        known.STUDY_INSTANCE_UID: [study.uid],
        known.INSTANCE_AVAILABILITY: ["ONLINE"],
        known.STUDY_SERIES: [str(len(series))],
        known.STUDY_INSTANCES: [str(len(instances))],
        known.MODALITIES_IN_STUDY: sorted({one.modality for one in series if one.modality}),
        known.SOP_CLASSES_IN_STUDY: sorted({one.recording.sop_class_uid for one in instances}),
    }


def series_record(series: MemorySeries) -> Attributes:
    """A series with its count."""
    return series.attributes | {
        known.SERIES_INSTANCE_UID: [series.uid],
        known.SERIES_INSTANCES: [str(len(series.instances))],
    }


def instance_record(instance: MemoryInstance) -> Attributes:
    """An instance."""
    one = instance.recording
    return one.instance | {
        known.SOP_INSTANCE_UID: [one.sop_instance_uid],
        known.SOP_CLASS_UID: [one.sop_class_uid],
        known.TRANSFER_SYNTAX_UID: [one.transfer_syntax_uid],
        known.AVAILABLE_TRANSFER_SYNTAX_UID: [one.transfer_syntax_uid],
    }
