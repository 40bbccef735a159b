"""DICOM values as FHIR R4 data types: dates, texts, names, ids. Pure; what cannot be said correctly is None."""

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Any

from imaging_services.domain.events.payloads import Element

Json = dict[str, Any]

_NAMESPACE = uuid.UUID("0c8a3f0e-41cf-5c05-a1c6-8f3a4f1f3c52")
_DATE = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})", re.ASCII)
_TIME = re.compile(r"(\d{2})(:?)(\d{2})(?:\2(\d{2})(?:\.(\d{1,6}))?)?", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})", re.ASCII)
# FHIR R4 string: no control characters but tab, line feed and carriage return.
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LARGEST_INTEGER = 2**31 - 1
_DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


class Attributes:
    """Elements of a study or series by tag (group << 16 | element)."""

    def __init__(self, elements: Sequence[Element]) -> None:
        self._by_tag = {element.tag: element for element in elements}

    def text(self, tag: int) -> str | None:
        """The first value, None when absent or empty."""
        element = self._by_tag.get(tag)
        return (element.value or None) if element else None

    def values(self, tag: int) -> list[str]:
        """All values."""
        element = self._by_tag.get(tag)
        if element is None:
            return []
        return element.values or (element.value or "").split("\\")


def fhir_date(value: str | None) -> date | None:
    """A DA value (PS3.5 section 6.2), also in the ACR-NEMA form ``YYYY.MM.DD``; None when it is no calendar date."""
    match = _DATE.fullmatch((value or "").strip(" \0"))
    if not match:
        return None
    try:
        return date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        return None


def fhir_time(value: str | None) -> time | None:
    """A TM value that names at least hour and minute, as FHIR demands; seconds default to zero, fractions are cut."""
    match = _TIME.fullmatch((value or "").strip(" \0"))
    if not match:
        return None
    try:
        return time(int(match[1]), int(match[3]), int(match[4] or 0))
    except ValueError:
        return None


def fhir_date_time(day: str | None, clock: str | None, zone: tzinfo | None) -> str | None:
    """A FHIR dateTime. A time needs its zone there, so without a known zone only the date is said."""
    on = fhir_date(day)
    if on is None:
        return None
    at = fhir_time(clock)
    if at is None or zone is None:
        return on.isoformat()
    try:
        moment = datetime.combine(on, at, zone)
        offset = moment.utcoffset()
    except (OverflowError, ValueError):  # the first and last days of the calendar have no offset in some zones
        return on.isoformat()
    # FHIR knows offsets in whole minutes; local mean times, in use until the 20th century, have seconds.
    return on.isoformat() if offset is None or offset.total_seconds() % 60 else moment.isoformat()


def offset_zone(value: str | None) -> tzinfo | None:
    """Timezone Offset From UTC (0008,0201), ``&ZZXX``, -1200 to +1400 (PS3.3 section C.12.1.1.8)."""
    match = _OFFSET.fullmatch((value or "").strip(" \0"))
    if not match or int(match[3]) > 59:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    offset = -offset if match[1] == "-" else offset
    if not timedelta(hours=-12) <= offset <= timedelta(hours=14):
        return None
    return timezone(offset) if offset else UTC


def fhir_text(value: str | None) -> str | None:
    """A FHIR string: control characters become spaces, padding goes, and an empty one is None."""
    return _NOT_TEXT.sub(" ", value or "").strip() or None


def fhir_code(value: str | None) -> str | None:
    """A FHIR code: a text with single spaces."""
    return " ".join((fhir_text(value) or "").split()) or None


def fhir_unsigned(value: int | None) -> int | None:
    """A FHIR unsignedInt; DICOM's negative or larger numbers cannot be said."""
    return value if value is not None and 0 <= value <= _LARGEST_INTEGER else None


def human_name(value: str | None) -> str | None:
    """A PN value as people read it: prefix, given, middle, family, suffix of the first component group in use."""
    groups = [group for group in (fhir_text(value) or "").split("=") if group.strip("^ ")]
    if not groups:
        return None
    family, given, middle, prefix, suffix = ([*groups[0].split("^"), "", "", "", "", ""])[:5]
    return fhir_text(" ".join(" ".join((prefix, given, middle, family, suffix)).split()))


def name_parts(value: str | None) -> dict[str, object] | None:
    """A PN value as a FHIR HumanName."""
    text = human_name(value)
    if text is None:
        return None
    group = next(group for group in (fhir_text(value) or "").split("=") if group.strip("^ "))
    family, given, middle, prefix, suffix = ([*(part.strip() for part in group.split("^")), "", "", "", "", ""])[:5]
    name: dict[str, object] = {"text": text}
    name |= {"family": family} if family else {}
    name |= {"given": [part for part in (given, middle) if part]} if given or middle else {}
    name |= {"prefix": [prefix]} if prefix else {}
    return name | ({"suffix": [suffix]} if suffix else {})


def stable_id(*parts: str) -> str:
    """The FHIR id that the same parts always get."""
    return str(uuid.uuid5(_NAMESPACE, "|".join(parts)))


def coding(system: str, code: str | None) -> Json:
    """A mandatory Coding; where the images do not say the code, it says that it is unknown."""
    return {"system": system, "code": code} if code else {"extension": [absent()]}


def absent() -> Json:
    """The extension that stands for a mandatory value nobody knows."""
    return {"url": _DATA_ABSENT, "valueCode": "unknown"}


def without_none(members: Json) -> Json:
    """The members that have a value."""
    return {name: value for name, value in members.items() if value is not None}
