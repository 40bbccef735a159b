"""Content items of structured reports with their values as text (PS3.3 sections C.17.3 and C.18)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imaging_services.domain.dicom.transfer_syntaxes import name_of
from imaging_services.domain.manifest.query import DicomJson

DEEPEST = 64
"""Levels of nesting that are shown."""

_RELATIONS = {
    "HAS OBS CONTEXT": "context",
    "HAS ACQ CONTEXT": "acquisition",
    "HAS CONCEPT MOD": "modifier",
    "HAS PROPERTIES": "property",
    "INFERRED FROM": "inferred from",
    "SELECTED FROM": "selected from",
}
_RELATIONSHIP_TYPE = "0040A010"
_VALUE_TYPE = "0040A040"
_CONCEPT_NAME = "0040A043"
_CONTENT_SEQUENCE = "0040A730"
_REFERENCED_ITEM = "0040DB73"


@dataclass(frozen=True, slots=True)
class Item:
    """One content item; ``relation`` is empty for what is contained."""

    name: str
    value: str
    relation: str
    children: Sequence["Item"]


def content_item(item: DicomJson, depth: int = 0) -> Item:
    """The tree below an item of a Content Sequence, or of the whole document."""
    value_type = _first(item, _VALUE_TYPE)
    read = _VALUES.get(value_type)
    below = _items(item, _CONTENT_SEQUENCE)
    if depth < DEEPEST:
        children = [content_item(child, depth + 1) for child in below]
    else:
        children = [Item("", f"{len(below)} items more", "", ())] if below else []
    value = read(item) if read else _reference(item)
    relation = _RELATIONS.get(_first(item, _RELATIONSHIP_TYPE), "")
    return Item(_concept(item, _CONCEPT_NAME), value, relation, children)


def strings(item: DicomJson, tag: str) -> list[str]:
    """The values of an element as text."""
    values = item.get(tag, {}).get("Value", [])
    return [person_name(value) if isinstance(value, dict) else str(value) for value in values if value is not None]


def person_name(value: Mapping[str, str]) -> str:
    """All representations of a name."""
    return " / ".join(
        " ".join(value[group].replace("^", " ").split())
        for group in ("Alphabetic", "Ideographic", "Phonetic")
        if value.get(group)
    )


def _first(item: DicomJson, tag: str) -> str:
    return next(iter(strings(item, tag)), "")


def _items(item: DicomJson, tag: str) -> list[DicomJson]:
    element = item.get(tag, {})
    return [one for one in element.get("Value", []) if isinstance(one, dict)] if element.get("vr") == "SQ" else []


def _concept(item: DicomJson, tag: str) -> str:
    """The meaning of a code, or the code itself (PS3.3 table 8.8-1)."""
    for code in _items(item, tag):
        return _first(code, "00080104") or _first(code, "00080100") or _first(code, "00080119")
    return ""


def _code(item: DicomJson) -> str:
    meaning = _concept(item, "0040A168")
    for code in _items(item, "0040A168"):
        value, scheme = _first(code, "00080100"), _first(code, "00080102")
        return f"{meaning} ({value}, {scheme})" if value and scheme else meaning
    return meaning


def _number(item: DicomJson) -> str:
    for measured in _items(item, "0040A300"):
        unit = _concept(measured, "004008EA")
        code = next((_first(one, "00080100") for one in _items(measured, "004008EA")), "")
        return f"{_first(measured, '0040A30A')} {'' if code == '1' else unit}".strip()
    return _concept(item, "0040A301")


def _referenced_object(item: DicomJson) -> str:
    references = []
    for reference in _items(item, "00081199"):
        kind, uid = _first(reference, "00081150"), _first(reference, "00081155")
        frames = ", ".join(strings(reference, "00081160"))
        references.append(f"{name_of(kind)} {uid}{f', frames {frames}' if frames else ''}")
    return "; ".join(references)


def _graphic(item: DicomJson) -> str:
    points: Sequence[Any] = item.get("00700022", {}).get("Value", [])
    per_point = 3 if _first(item, _VALUE_TYPE) == "SCOORD3D" else 2
    return f"{_first(item, '00700023').lower()} of {len(points) // per_point} points" if points else ""


def _times(item: DicomJson) -> str:
    positions = strings(item, "0040A138") or strings(item, "0040A132") or strings(item, "0040A13A")
    return f"{_first(item, '0040A130').lower()} {', '.join(positions)}".strip()


def _reference(item: DicomJson) -> str:
    """A relationship by reference: the place of another item in the tree."""
    place = ".".join(strings(item, _REFERENCED_ITEM))
    return f"see item {place}" if place else ""


def _plain(tag: str) -> Callable[[DicomJson], str]:
    return lambda item: ", ".join(strings(item, tag))


_VALUES: Mapping[str, Callable[[DicomJson], str]] = {
    "TEXT": _plain("0040A160"),
    "NUM": _number,
    "CODE": _code,
    "DATE": _plain("0040A121"),
    "TIME": _plain("0040A122"),
    "DATETIME": _plain("0040A120"),
    "PNAME": _plain("0040A123"),
    "UIDREF": _plain("0040A124"),
    "COMPOSITE": _referenced_object,
    "IMAGE": _referenced_object,
    "WAVEFORM": _referenced_object,
    "SCOORD": _graphic,
    "SCOORD3D": _graphic,
    "TCOORD": _times,
}
