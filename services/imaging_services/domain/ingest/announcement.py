"""The ``ImageStoredEvent`` of an instance that has been stored: built by hand, since it is made for every instance.

The shape is ``domain/events/payloads.ImageStored``; a test holds the two together.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from imaging_services.domain.dicom.elements import Header
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
    decoding = decoding_of(header)
    found: dict[int, dict[str, Any]] = {}
    ordered, last = True, -1
    for tag, vr, raw in header.elements:
        if tag in found:
            continue
        short = raw is None or len(raw) <= _CACHED_LENGTH
        found[tag] = _cached_element(tag, vr, raw, decoding) if short else _element(tag, vr, raw, decoding)
        ordered, last = ordered and tag > last, tag
    return list(found.values()) if ordered else [found[tag] for tag in sorted(found)]


def _element(tag: int, vr: str, raw: bytes | None, decoding: Decoding) -> dict[str, Any]:
    entry = element_json(tag, vr, raw, decoding)
    if raw and entry["vr"] == "SQ":
        items = items_json(raw, decoding)
        if items:
            entry["items"] = items
    return entry


# The instances of a study have most of their elements in common.
_cached_element = lru_cache(maxsize=8192)(_element)
