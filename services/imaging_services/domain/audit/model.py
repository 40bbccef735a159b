"""What an audit knows of an object, and what it finds."""

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from imaging_services.domain.manifest.recording import InstanceKey


class Role(StrEnum):
    """What the manifest says of an object's name."""

    INSTANCE = "instance"
    """The object of an instance."""
    MARKED = "marked"
    """The object of an instance that is marked as missing."""
    REPLACED = "replaced"
    """An earlier version of an instance; it stays."""
    WAITING = "waiting"
    """The object of a deleted instance, which is going to be removed."""
    DELETED = "deleted"
    """The object of a deleted instance, which has been removed."""
    OTHER = "other"
    """Another provider's that lies in the same bucket."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The manifest's row for an object name. ``size`` is in bytes, ``digest`` a hex SHA-256; None: unknown."""

    object_name: str
    role: Role
    instance_id: int | None = None
    size: int | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """The version of an instance that is recorded."""

    instance_id: int
    object_name: str
    digest: str | None
    accepted_at: datetime | None


class Kind(StrEnum):
    """What can be wrong."""

    MISSING = "missing"
    """An instance is recorded, its object is not there."""
    FOUND = "found"
    """An instance is marked as missing, its object is there again."""
    UNKNOWN = "unknown"
    """An object with a name of ours that the manifest does not know."""
    FOREIGN = "foreign"
    """An object that is none of ours."""
    WRONG_SIZE = "wrong-size"
    """An object is longer or shorter than recorded."""
    WRONG_DIGEST = "wrong-digest"
    """An object's bytes are not those that its name says."""
    UNDELETED = "undeleted"
    """The object of a deleted instance was removed, and is there again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``repaired`` says what was done about it, None: nothing."""

    kind: Kind
    key: str
    reason: str
    instance: InstanceKey | None = None
    repaired: str | None = None

    def document(self) -> dict[str, Any]:
        """As a JSON object."""
        study, series, sop = self.instance or (None, None, None)
        found = {k: v for k, v in asdict(self).items() if k != "instance"}
        return {**found, "studyInstanceUID": study, "seriesInstanceUID": series, "sopInstanceUID": sop}


@dataclass(slots=True)
class Summary:
    """What an audit has seen. ``position`` is the last key that it is done with."""

    position: str = ""
    objects: int = 0
    instances: int = 0
    digests: int = 0
    digest_bytes: int = 0
    roles: Counter[str] = field(default_factory=Counter)
    """Objects that are in order, by their role."""
    recent: int = 0
    """Objects too young to be called unknown."""
    marked: int = 0
    """Instances that are marked as missing, and still are."""
    findings: Counter[str] = field(default_factory=Counter)
    repaired: int = 0

    def document(self) -> dict[str, Any]:
        """As a JSON object."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}
