"""Recorded attributes as the DICOM JSON Model (PS3.18 annex F)."""

from collections.abc import Mapping, Sequence
from typing import Any

from imaging_services.domain.manifest.attributes import ATTRIBUTES, RETURNABLE_TAGS, UNIQUE_KEYS, default_tags
from imaging_services.domain.manifest.items import read_item
from imaging_services.domain.manifest.query import DicomJson, Query
from imaging_services.domain.manifest.values import decimal_number, whole_number

_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def returned_tags(query: Query) -> frozenset[str]:
    """What a search returns: the level's attributes and unique keys, what it matched by and what it asks for."""
    known = RETURNABLE_TAGS[query.level]
    if query.include_all:
        return known
    matched = {tag[:8] for tag in query.filters}  # of an item's attribute the sequence
    return (default_tags(query.level) | set(UNIQUE_KEYS[query.level]) | matched | query.include) & known


def dicom_json(recorded: Mapping[str, Sequence[str]], tags: frozenset[str]) -> DicomJson:
    """Those of the recorded attributes, in tag order, typed by their value representation. Absent ones are left
    out."""
    result: DicomJson = {}
    for tag in sorted(tags & recorded.keys()):
        vr = ATTRIBUTES[tag].vr
        values = [value for value in (_value(tag, vr, text) for text in recorded[tag]) if value is not None]
        if values:
            result[tag] = {"vr": vr, "Value": values}
    return result


def _value(tag: str, vr: str, text: str) -> Any:
    if vr == "SQ":
        return _item(tag, text)
    if vr == "PN":
        groups = zip(_GROUPS, text.split("="), strict=False)
        return {name: group for name, group in groups if group} or None
    if vr == "IS":
        number = whole_number(text)
        return text if number is None else number  # section F.2.3: IS and DS may be strings, so what is no number stays
    if vr == "DS":
        spelled = decimal_number(text)
        return text if spelled is None else _number(spelled)
    if vr == "US":
        return whole_number(text)
    return text


def _item(sequence: str, text: str) -> DicomJson:
    item: DicomJson = {}
    for tag, values in sorted(read_item(text).items()):
        vr = ATTRIBUTES[f"{sequence}.{tag}"].vr
        item[tag] = {"vr": vr, "Value": [_value(tag, vr, value) for value in values]}
    return item


def _number(spelled: str) -> int | float:
    return int(spelled) if spelled.lstrip("-").isdigit() else float(spelled)
