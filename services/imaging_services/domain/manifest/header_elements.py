"""What the manifest records of a header: the elements of an ``ImageStoredEvent`` that it knows, by level."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import (
    ATTRIBUTES,
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
)
from imaging_services.domain.manifest.items import recorded_items
from imaging_services.domain.manifest.query import Level
from imaging_services.domain.manifest.values import clean_values

Attributes = dict[str, list[str]]
"""Recorded values as text, by tag; the items of a sequence as JSON (``domain/manifest/items.py``)."""

_IDENTIFIERS = frozenset({STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID, SOP_CLASS_UID})
_WANTED = {
    spelled: row
    for tag, row in ATTRIBUTES.items()
    if tag in _IDENTIFIERS or not row.computed
    for spelled in (tag, tag.lower())
}
_STUDY, _SERIES, _INSTANCE, _IDENTIFIER = range(4)
_PLACES = {Level.PATIENT: _STUDY, Level.STUDY: _STUDY, Level.SERIES: _SERIES, Level.IMAGE: _INSTANCE}


class Element(NamedTuple):
    """One recorded element: the place of its level, and its values as they are recorded."""

    place: int
    tag: str
    values: list[str]


class HeaderElements:
    """The recorded attributes of a header by level; empty ones are as good as absent."""

    __slots__ = ("identifiers", "instance", "series", "study")

    def __init__(self, elements: Iterable[Element | None]) -> None:
        self.identifiers: dict[str, str] = {}
        self.instance: Attributes = {}
        self.series: Attributes = {}
        self.study: Attributes = {}
        self.add(elements)

    def add(self, elements: Iterable[Element | None]) -> None:
        """What comes later in the document holds."""
        places = (self.study, self.series, self.instance)
        for place, tag, values in filter(None, elements):
            if place == _IDENTIFIER:
                self.identifiers[tag] = values[0]
            else:
                places[place][tag] = values

    def update(self, later: "HeaderElements") -> None:
        """As ``add``, of elements that were read before."""
        self.identifiers.update(later.identifiers)
        self.instance.update(later.instance)
        self.series.update(later.series)
        self.study.update(later.study)


def header_elements(elements: Any) -> HeaderElements:
    """From the parsed ``image.elements``. Raises ``InvalidInput`` when that is not what it has to be."""
    if not isinstance(elements, list):
        raise InvalidInput("image.elements is no list")
    return HeaderElements([element(item) for item in elements])


def element(item: Any) -> Element | None:
    """What is recorded of an element; None of one that the manifest does not know, or that is empty."""
    try:
        group, number = item["group"], item["element"]
        if type(group) is not str or type(number) is not str:  # early producers wrote the halves as numbers
            group, number = _half(group), _half(number)
        attribute = _WANTED.get(group + number)
    except (KeyError, TypeError, ValueError):
        raise InvalidInput("image.elements holds something that is no element") from None
    if attribute is None:
        return None
    tag = attribute.tag
    if attribute.vr == "SQ":
        values = recorded_items(tag, item.get("items"))
        return Element(_PLACES[attribute.level], tag, values) if values else None
    texts = _texts(tag, item)
    if tag in _IDENTIFIERS:
        return Element(_IDENTIFIER, tag, texts[:1] or [""])
    values = clean_values(attribute.vr, texts)
    return Element(_PLACES[attribute.level], tag, values) if values else None


def _half(value: str | int) -> str:
    return value if isinstance(value, str) else f"{value:04X}"


def _texts(tag: str, item: dict[str, Any]) -> list[str]:
    values = item.get("values")
    if values is None:
        value = item.get("value")
        return [] if value is None else [text_of(tag, value)]
    if not isinstance(values, list):
        raise InvalidInput(f"element {tag}: values is no list")
    return [text_of(tag, value) for value in values if value is not None]


def text_of(name: str, value: Any) -> str:
    """The value. Raises ``InvalidInput`` when it is no text."""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is absent or no text")
    return value
