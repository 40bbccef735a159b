"""What the manifest takes from an event: the instance that it records, or those that it deletes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from imaging_services.domain.dicom.uids import require_uid
from imaging_services.domain.errors import InvalidInput, Superseded
from imaging_services.domain.events.envelope import (
    ACCEPTED_AT,
    DICOM_AVAILABLE,
    EVENT_TYPES,
    IMAGE_DELETED,
    IMAGE_STORED,
    STUDY_REVISION,
    CloudEvent,
    event_id,
)
from imaging_services.domain.events.payloads import DicomAvailable, ImageDeleted, Store, StudyRevision
from imaging_services.domain.manifest.attributes import (
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
)
from imaging_services.domain.manifest.deletion import Deletion, deletion, digest_of
from imaging_services.domain.manifest.header_elements import Attributes, header_elements, text_of
from imaging_services.domain.manifest.header_text import cut_document

InstanceKey = tuple[str, str, str]

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_INT8 = 2**63
_CHECKED: dict[str, type[BaseModel]] = {DICOM_AVAILABLE: DicomAvailable, STUDY_REVISION: StudyRevision}


@dataclass(frozen=True, slots=True)
class Recording:
    """One instance as it is to be recorded.

    ``digest`` is the hex SHA-256 of the file, taken from the object name (``<digest>.dcm``) when the producer did not
    say; ``identity`` is what a re-send is recognised by: the digest, else the object name. ``accepted_at`` is when it
    was taken over from its sender; None: when it is recorded.
    """

    event: CloudEvent
    accepted_at: datetime | None
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    provider: str
    bucket_name: str | None
    object_name: str
    wado_internal: str | None
    wado_external: str | None
    size: int | None
    digest: str | None
    pixel_data_offset: int | None
    study: Attributes
    series: Attributes
    instance: Attributes

    @property
    def identity(self) -> str:
        """What tells whether this is a re-send of the same bytes."""
        return self.digest or self.object_name

    @property
    def fact(self) -> str:
        """The identity as ids of events have it: what is stored again after it was deleted is news."""
        named = digest_of(self.object_name)
        return self.object_name.removesuffix(".dcm") if named and named == self.digest else self.identity

    @property
    def key(self) -> InstanceKey:
        """Study, Series and SOP Instance UID: together they identify an instance."""
        return self.study_instance_uid, self.series_instance_uid, self.sop_instance_uid

    @property
    def series_key(self) -> tuple[str, str]:
        """Study and Series Instance UID."""
        return self.study_instance_uid, self.series_instance_uid


def read_event(event: CloudEvent) -> Recording | Deletion | None:
    """The recording of an ``ImageStoredEvent``, the deletion of an ``ImageDeletedEvent``; None for the other types,
    which are only checked.

    Raises ``InvalidInput`` for an unknown type, broken JSON, missing members and absurd values,
    ``MissingIdentifier`` when a UID is absent or malformed.
    """
    if event.type not in EVENT_TYPES:
        raise InvalidInput(f"event type {event.type[:80]!r} is unknown, known are {', '.join(sorted(EVENT_TYPES))}")
    if not event.id or len(event.id) > 255 or not event.source:
        raise InvalidInput(f"{event.type} has no id or source")
    try:
        if event.type in _CHECKED:
            _CHECKED[event.type].model_validate(orjson.loads(event.data))  # pydantic's own reading takes NaN
            return None
        if event.type == IMAGE_DELETED:
            return deletion(event, ImageDeleted.model_validate(orjson.loads(event.data)))
        return _recording(event)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{event.type} is not JSON: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "data"
        raise InvalidInput(f"{event.type} cannot be read: {place}: {first['msg']}") from None


def _recording(event: CloudEvent) -> Recording:
    cut = cut_document(event.data)
    document: Any = cut[0] if cut else orjson.loads(event.data)
    image = document.get("image") if isinstance(document, dict) else None
    if not isinstance(image, dict) or "store" not in document:
        raise InvalidInput(f"{event.type} has no image or no store")
    header = cut[1] if cut else header_elements(image.get("elements"))
    store = Store.model_validate(document["store"])
    digest = store.digest or digest_of(store.objectName)
    return Recording(
        event=event,
        accepted_at=_moment(event.extensions.get(ACCEPTED_AT)),
        study_instance_uid=require_uid("StudyInstanceUID", header.identifiers.get(STUDY_INSTANCE_UID)),
        series_instance_uid=require_uid("SeriesInstanceUID", header.identifiers.get(SERIES_INSTANCE_UID)),
        sop_instance_uid=require_uid("SOPInstanceUID", header.identifiers.get(SOP_INSTANCE_UID)),
        sop_class_uid=require_uid("SOPClassUID", header.identifiers.get(SOP_CLASS_UID)),
        transfer_syntax_uid=require_uid(
            "transferSyntaxUID", text_of("transferSyntaxUID", image.get("transferSyntaxUID"))
        ),
        provider=_required("store.provider", store.provider),
        bucket_name=_plain("store.bucketName", store.bucketName),
        object_name=_required("store.objectName", store.objectName),
        wado_internal=_plain("store.wadoInternalEndpoint", store.wadoInternalEndpoint),
        wado_external=_plain("store.wadoExternalEndpoint", store.wadoExternalEndpoint),
        size=_count("store.size", store.size),
        digest=_plain("store.digest", digest),
        pixel_data_offset=_count("store.pixelDataOffset", store.pixelDataOffset),
        study=header.study,
        series=header.series,
        instance=header.instance,
    )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidInput(f"{ACCEPTED_AT} {text[:80]!r} is not an RFC 3339 time")
    return moment


def _plain(name: str, value: str | None) -> str | None:
    if value and (len(value) > 1024 or _UNPRINTABLE.search(value)):
        raise InvalidInput(f"{name} is longer than 1024 characters or holds control characters")
    return value or None


def _required(name: str, value: str) -> str:
    if not _plain(name, value):
        raise InvalidInput(f"{name} is empty")
    return value


def _count(name: str, value: int | None) -> int | None:
    if value is not None and not 0 <= value < _INT8:
        raise InvalidInput(f"{name} {value} is not a length in bytes")
    return value


def superseded_by(sop_instance_uid: str, newer: datetime) -> Superseded:
    """Why a version is refused when one accepted at ``newer`` is recorded."""
    return Superseded(
        f"a version of {sop_instance_uid} accepted at {newer:%H:%M:%S}, later than this one, is there already"
    )


def fill_absent(known: Attributes, later: Attributes) -> Attributes:
    """Attributes of a study or series after a later instance: the first writer sets, a later one fills what is
    absent and changes nothing."""
    return {**later, **known}


def combined(recordings: Iterable[Attributes]) -> Attributes:
    """The attributes that several instances give together, the first one's first."""
    result: Attributes = {}
    for attributes in recordings:
        result = fill_absent(result, attributes)
    return result


def stored_event(recording: Recording, repeats: int) -> CloudEvent:
    """The ``ImageStoredEvent`` to publish: the producer's own, so that its id is the one the producer knows.

    ``repeats`` counts how often the same bytes were replaced before: an instance that changes back is news, whose
    event has to differ from the first one's.
    """
    event = recording.event
    return replace(event, id=repeated_id(fact_id(IMAGE_STORED, recording), repeats)) if repeats else event


def available_event(recording: Recording, source: str, wado_internal: str | None, repeats: int) -> CloudEvent:
    """The ``DicomAvailableEvent`` of a recorded instance; ``wado_internal`` is the endpoint that its series was first
    seen with."""
    study, series, instance = recording.key
    endpoint = f"{(wado_internal or '').rstrip('/')}/studies/{study}/series/{series}/instances/{instance}"
    data = DicomAvailable(provider=recording.provider, endpoint=endpoint).model_dump_json().encode()
    return CloudEvent(
        DICOM_AVAILABLE,
        source,
        repeated_id(fact_id(DICOM_AVAILABLE, recording), repeats),
        data,
        extensions=dict(recording.event.extensions),  # they name the bridge an event came by: it must not go back
    )


def fact_id(event_type: str, recording: Recording) -> str:
    """The id of what an event says of these bytes of an instance."""
    return event_id(event_type, recording.provider, *recording.key, recording.fact)


def repeated_id(fact: str, repeats: int) -> str:
    """The id of the same fact when it has become true again."""
    return f"{fact}-{repeats}" if repeats else fact
