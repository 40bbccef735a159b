"""Queries over the manifest: what QIDO-RS and C-FIND ask, in one form.

Results are instances of the DICOM JSON Model (PS3.18 annex F): ``{"0020000D": {"vr": "UI", "Value": [...]}}``.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

DicomJson = dict[str, dict[str, Any]]


class Level(StrEnum):
    """Query/Retrieve levels (PS3.4 section C.6.1.1)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


@dataclass(frozen=True, slots=True)
class Query:
    """One search.

    ``filters`` maps a tag (eight upper-case hex digits; for an attribute of sequence items both tags, joined by a dot)
    to its matching value in the DICOM text form of PS3.4 section C.2.2.2: single value, wild card (``*``, ``?``),
    range (``a-b``), or several values for a UID list or repeated values (``\\\\`` in C-FIND, ``,`` in QIDO), already
    split. An empty tuple is universal matching. Timezone Offset From UTC is not matched: it says in which zone the
    dates and times of the other filters are.
    ``fuzzy``, ``combined`` (a date and its time are one moment), ``empty_values`` (``""`` matches what has no value)
    and ``every_value`` (each of several values has to be there) are the extended matching of section C.2.2.2.
    ``include`` holds tags to be returned beyond the level's own; ``include_all`` returns all that is recorded.
    ``after`` is the unique keys (UIDs) of a result: the search goes on behind it, whatever has come before it since.
    Not at the patient level. Without a ``provider`` the search covers every storage space.
    """

    level: Level
    provider: str | None = None
    filters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fuzzy: bool = False
    combined: bool = False
    empty_values: bool = False
    every_value: bool = False
    include: frozenset[str] = frozenset()
    include_all: bool = False
    limit: int | None = None
    offset: int = 0
    after: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """A study, a series or an instance, within one provider (None: every storage space)."""

    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class InstanceLocation:
    """A recorded instance and where its Part 10 file lies.

    ``size`` is the file's length in bytes, ``digest`` its hex SHA-256, ``pixel_data_offset`` the file offset of
    the Pixel Data element; each None when the producer of the event did not say. ``missing_since``: an audit has found
    that the object is not there.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    provider: str
    object_name: str
    bucket_name: str | None
    size: int | None
    digest: str | None
    pixel_data_offset: int | None
    last_modified: datetime
    missing_since: datetime | None = None
