"""The ``ImageStoredEvent`` of an instance that has been stored: built by hand, since it is made for every instance.

The shape is ``domain/events/payloads.ImageStored``; a test holds the two together.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from imaging_services.domain.dicom.elements import Header, RawElement, Stretch
from imaging_services.domain.dicom.items import element_json, items_json
from imaging_services.domain.dicom.values import Decoding, decoding_of
from imaging_services.domain.events.envelope import ACCEPTED_AT, IMAGE_STORED, PRIORITY, URGENT, CloudEvent, event_id
from imaging_services.domain.ingest.heading import Heading

_CACHED_LENGTH = 64
"""Longest value, in bytes, whose decoded form is kept for the next instance."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What every event of one ingestion says of itself: storage space and the places to retrieve from."""

    provider: str
    source: str
    bucket_name: str | None
    wado_internal: str | None
    wado_external: str | None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The object in the storage space: key, length in bytes, hex SHA-256."""

    key: str
    size: int
    digest: str


def image_stored(
    stored: StoredObject,
    heading: Heading,
    provenance: Provenance,
    accepted_at: datetime | None = None,
    *,
    urgent: bool = False,
) -> CloudEvent:
    """The event; the same bytes in the same space always give the same id and data. ``accepted_at`` orders the versions
    of one instance; None lets the order of recording decide. An ``urgent`` one overtakes others."""
    data = {
        "image": {"transferSyntaxUID": heading.transfer_syntax, "elements": elements_json(heading.header)},
        "store": {
            "provider": provenance.provider,
            "bucketName": provenance.bucket_name,
            "objectName": stored.key,
            "wadoInternalEndpoint": provenance.wado_internal,
            "wadoExternalEndpoint": provenance.wado_external,
            "size": stored.size,
            "digest": stored.digest,
            "pixelDataOffset": heading.pixel_data_offset,
        },
    }
    identity = event_id(
        IMAGE_STORED,
        provenance.provider,
        heading.study_instance_uid,
        heading.series_instance_uid,
        heading.sop_instance_uid,
        stored.key.removesuffix(".dcm"),
    )
    extensions = {} if accepted_at is None else {ACCEPTED_AT: accepted_at.isoformat()}
    if urgent:
        extensions[PRIORITY] = URGENT
    return CloudEvent(IMAGE_STORED, provenance.source, identity, orjson.dumps(data), extensions=extensions)


def elements_json(header: Header) -> list[dict[str, Any]]:
    """The elements in tag order; a tag that occurs twice is listed once, with its first value."""
    decoding, elements = decoding_of(header), header.elements
    found: list[dict[str, Any]] = []
    place, last, ordered = 0, -1, True
    for start, stretch in [*header.stretches, (len(elements), None)]:
        for one in elements[place:start]:
            found.append(_entry(one, decoding))
            ordered, last = ordered and one[0] > last, one[0]
        if stretch is not None:
            found += _stretch_json(stretch, decoding)
            ordered, last = ordered and stretch.elements[0][0] > last, stretch.elements[-1][0]
            place = start + len(stretch.elements)
    return found if ordered else _in_order(elements, decoding)


def _in_order(elements: list[RawElement], decoding: Decoding) -> list[dict[str, Any]]:
    first = {one[0]: one for one in reversed(elements)}
    return [_entry(first[tag], decoding) for tag in sorted(first)]


def _entry(element: RawElement, decoding: Decoding) -> dict[str, Any]:
    raw = element[2]
    return (_cached_element if raw is None or len(raw) <= _CACHED_LENGTH else _element)(*element, decoding)


def _element(tag: int, vr: str, raw: bytes | None, decoding: Decoding) -> dict[str, Any]:
    entry = element_json(tag, vr, raw, decoding)
    if raw and entry["vr"] == "SQ":
        items = items_json(raw, decoding)
        if items:
            entry["items"] = items
    return entry


# The instances of a study have most of their elements in common.
_cached_element = lru_cache(maxsize=8192)(_element)


# What a stretch says as it was decoded last, for as long as the stretch itself is remembered.
_said: WeakKeyDictionary[Stretch, tuple[Decoding, list[dict[str, Any]]]] = WeakKeyDictionary()


def _stretch_json(stretch: Stretch, decoding: Decoding) -> list[dict[str, Any]]:
    known = _said.get(stretch)
    if known is None or known[0] != decoding:
        known = _said[stretch] = decoding, [_entry(one, decoding) for one in stretch.elements]
    return known[1]
