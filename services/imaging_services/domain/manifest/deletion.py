"""Deleting instances: the ``ImageDeletedEvent``, and what the manifest takes from it.

An event names instances together with their objects. So an event that is delivered again never deletes what was stored
in between, which lies in an object of another name (``object_key``).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from imaging_services.domain.dicom.uids import require_uid
from imaging_services.domain.errors import InvalidInput, ObjectDeleted
from imaging_services.domain.events.envelope import IMAGE_DELETED, CloudEvent, event_id
from imaging_services.domain.events.payloads import DeletedInstance, ImageDeleted
from imaging_services.domain.manifest.query import InstanceLocation

INSTANCES_OF_AN_EVENT = 1000
"""Most instances that one event names: it fits a NATS message."""
_LONGEST_NAME = 1024
_OBJECT_KEY = re.compile(r"([0-9a-f]{64})(?:-[1-9][0-9]{0,3})?\.dcm")


@dataclass(frozen=True, slots=True)
class Deletion:
    """Instances of one study to delete, within one provider."""

    event: CloudEvent
    provider: str
    study_instance_uid: str
    instances: tuple[DeletedInstance, ...]


@dataclass(frozen=True, slots=True)
class DeletedObject:
    """An object without an instance, waiting to be removed from its storage space since ``waiting_since``."""

    object_name: str
    waiting_since: datetime


def object_key(digest: str, generation: int = 0) -> str:
    """The name of an instance's object: ``<SHA-256>.dcm``, with a number when these bytes have been deleted before."""
    return f"{digest}-{generation}.dcm" if generation else f"{digest}.dcm"


def digest_of(object_name: str) -> str | None:
    """The digest within a name that ``object_key`` made, None for other names."""
    match = _OBJECT_KEY.fullmatch(object_name)
    return match[1] if match else None


def earlier_names(object_name: str) -> list[str]:
    """The names that the same bytes had before ``object_key`` gave them this one: those of deleted objects."""
    match = _OBJECT_KEY.fullmatch(object_name)
    generation = int(object_name[65:].removesuffix(".dcm")) if match and object_name[64] == "-" else 0
    return [object_key(object_name[:64], earlier) for earlier in range(generation)]


def is_later_name(name: str, known: str) -> bool:
    """Whether ``name`` is what ``object_key`` gave to the same bytes after their object ``known`` had been deleted."""
    new, old = _OBJECT_KEY.fullmatch(name), _OBJECT_KEY.fullmatch(known)
    return bool(new and old and new[1] == old[1] and (len(name), name) > (len(known), known))


def deletion_events(source: str, provider: str, locations: Sequence[InstanceLocation]) -> Iterator[CloudEvent]:
    """The events that delete these instances of one study; the same instances always give the same ids."""
    for start in range(0, len(locations), INSTANCES_OF_AN_EVENT):
        some = locations[start : start + INSTANCES_OF_AN_EVENT]
        study = some[0].study_instance_uid
        instances = [
            DeletedInstance(
                seriesInstanceUID=one.series_instance_uid,
                sopInstanceUID=one.sop_instance_uid,
                objectName=one.object_name,
            )
            for one in some
        ]
        data = ImageDeleted(provider=provider, studyInstanceUID=study, instances=instances)
        identity = event_id(IMAGE_DELETED, provider, study, *(one.objectName for one in instances))
        yield CloudEvent(IMAGE_DELETED, source, identity, data.model_dump_json().encode())


def deletion(event: CloudEvent, data: ImageDeleted) -> Deletion:
    """The deletion of an event. Raises ``InvalidInput`` and ``MissingIdentifier``."""
    for one in data.instances:
        require_uid("SeriesInstanceUID", one.seriesInstanceUID)
        require_uid("SOPInstanceUID", one.sopInstanceUID)
        if not 0 < len(one.objectName) <= _LONGEST_NAME or "\x00" in one.objectName:
            raise InvalidInput("objectName is empty, longer than 1024 characters or holds NUL")
    if not 0 < len(data.provider) <= _LONGEST_NAME or "\x00" in data.provider:
        raise InvalidInput("provider is empty, longer than 1024 characters or holds NUL")
    study = require_uid("StudyInstanceUID", data.studyInstanceUID)
    return Deletion(event, data.provider, study, tuple(data.instances))


def object_deleted(sop_instance_uid: str) -> ObjectDeleted:
    """Why an instance in an object of this name is refused."""
    return ObjectDeleted(f"{sop_instance_uid} lies in an object whose name a deleted one had: store it under another")
