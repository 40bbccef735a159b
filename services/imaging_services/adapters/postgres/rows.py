"""Recordings as the rows that ``record_batch`` takes: what goes into the columns beside the attributes."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from imaging_services.domain.events.envelope import DICOM_AVAILABLE, IMAGE_STORED, CloudEvent
from imaging_services.domain.manifest.attributes import (
    ACCESSION_NUMBER,
    ATTRIBUTES,
    INSTANCE_NUMBER,
    MODALITY,
    PATIENT_ID,
    PATIENT_NAME,
    SEQUENCE_TAGS,
    SERIES_NUMBER,
    STUDY_DATE,
    STUDY_ID,
    STUDY_TIME,
)
from imaging_services.domain.manifest.header_elements import Attributes
from imaging_services.domain.manifest.items import read_item
from imaging_services.domain.manifest.recording import Recording, combined, fact_id
from imaging_services.domain.manifest.values import (
    MAX_KEY,
    date_key,
    name_key_columns,
    name_keys,
    name_words,
    time_key,
    whole_number,
)

Frozen = tuple[tuple[str, ...], ...]
"""Attributes as a key: each tag with its values."""

_PATIENT_BIRTH_DATE = "00100030"
_STUDIES_AT_ONCE = 512


def study_row(n: int, uid: str, members: Sequence[Recording]) -> dict[str, Any]:
    """An ``offered_study`` with what its instances say of it."""
    return {"n": n, "uid": uid, **_study_columns(_frozen(combined(one.study for one in members)))}


@lru_cache(maxsize=_STUDIES_AT_ONCE)
def _study_columns(frozen: Frozen) -> dict[str, Any]:
    """The instances of a study say nearly always the same of it."""
    attributes = _thawed(frozen)
    date, time, birth = (_first(attributes, tag) for tag in (STUDY_DATE, STUDY_TIME, _PATIENT_BIRTH_DATE))
    alphabetic, ideographic, phonetic = name_key_columns(_first(attributes, PATIENT_NAME) or "")
    return {
        "attributes": _with_items(attributes),
        "names": names(attributes),
        "study_id": _key(attributes, STUDY_ID),
        "study_date": date_key(date) if date else None,
        "study_time": time if time and time_key(time) else None,
        "patient_id": _key(attributes, PATIENT_ID),
        "patient_birth_date": date_key(birth) if birth else None,
        "accession_number": _key(attributes, ACCESSION_NUMBER),
        "patient_name": alphabetic,
        "patient_name_ideographic": ideographic,
        "patient_name_phonetic": phonetic,
        "patient_name_words": name_words(_first(attributes, PATIENT_NAME) or ""),
    }


def series_row(n: int, study: int, members: Sequence[Recording]) -> dict[str, Any]:
    """An ``offered_series`` with what its instances say of it; its endpoints are the first one's."""
    first = members[0]
    return {
        "n": n,
        "study": study,
        "uid": first.series_instance_uid,
        "provider": first.provider,
        "bucket_name": first.bucket_name,
        "wado_internal": first.wado_internal,
        "wado_external": first.wado_external,
        "sop_class_uids": sorted({one.sop_class_uid for one in members}),
        **_series_columns(_frozen(combined(one.series for one in members))),
    }


@lru_cache(maxsize=_STUDIES_AT_ONCE)
def _series_columns(frozen: Frozen) -> dict[str, Any]:
    attributes = _thawed(frozen)
    return {
        "number": _number(attributes, SERIES_NUMBER),
        "modality": _key(attributes, MODALITY),
        "attributes": _with_items(attributes),
        "names": names(attributes),
    }


def instance_row(recording: Recording, n: int, *, series: int, place: int) -> dict[str, Any]:
    """An ``offered_instance`` with its event."""
    event = recording.event
    return {
        "n": n,
        "series": series,
        "sop_instance_uid": recording.sop_instance_uid,
        "sop_class_uid": recording.sop_class_uid,
        "transfer_syntax_uid": recording.transfer_syntax_uid,
        "number": _number(recording.instance, INSTANCE_NUMBER),
        "object_name": recording.object_name,
        "bucket_name": recording.bucket_name,
        "size": recording.size,
        "digest": recording.digest,
        "pixel_data_offset": recording.pixel_data_offset,
        "attributes": _with_items(recording.instance),
        "place": place,
        "event_id": event.id,
        "source": event.source,
        "time": event.time,
        "extensions": event.extensions,
        "repeated_id": fact_id(IMAGE_STORED, recording),
        "available_id": fact_id(DICOM_AVAILABLE, recording),
        "accepted_at": recording.accepted_at,
    }


def event_row(event: CloudEvent, place: int) -> dict[str, Any]:
    """An ``offered_event``."""
    return {
        "place": place,
        "type": event.type,
        "event_id": event.id,
        "source": event.source,
        "time": event.time,
        "extensions": event.extensions,
    }


def _frozen(attributes: Attributes) -> Frozen:
    return tuple((tag, *values) for tag, values in attributes.items())


def _thawed(frozen: Frozen) -> Attributes:
    return {tag: values for tag, *values in frozen}


def _with_items(attributes: Attributes) -> dict[str, Any]:
    """The items of sequences as JSON objects, so that the database can look into them."""
    found = SEQUENCE_TAGS & attributes.keys()
    return {**attributes, **{tag: list(map(read_item, attributes[tag])) for tag in found}} if found else attributes


def names(attributes: Attributes) -> dict[str, dict[str, list[str]]]:
    """The person names as they are compared: ``k`` their component groups, ``w`` their words."""
    return {
        tag: {
            "k": [key for value in values for key in name_keys(value)],
            "w": [word for value in values for word in name_words(value)],
        }
        for tag, values in attributes.items()
        if ATTRIBUTES[tag].vr == "PN"
    }


def _first(attributes: Attributes, tag: str) -> str | None:
    return next(iter(attributes.get(tag, ())), None)


def _key(attributes: Attributes, tag: str) -> str | None:
    value = _first(attributes, tag)
    return value[:MAX_KEY] if value else None


def _number(attributes: Attributes, tag: str) -> int | None:
    value = _first(attributes, tag)
    return whole_number(value) if value else None
