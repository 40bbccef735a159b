"""What the manifest records of a header: the elements of an ``ImageStoredEvent`` that it knows, by level.

The instances of a study have most of their elements in common. So a document is cut into its elements as text, and
what a piece of text says is remembered: only the few pieces that were not seen before are parsed. A document in
another spelling than our own producer's is parsed whole.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

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

_FIRST = b'"elements":[{"group":"'
_NEXT = b'},{"group":"'
_LAST = b'}]},"store":'
_ITEMS, _AFTER_ITEMS = b'"items":[[', b']]},{"group":"'
_REMEMBERED = 16_384  # pieces, of at most so many bytes:
_REMEMBERED_LENGTH = 512


class Element(NamedTuple):
    """One recorded element: the place of its level, and its values as they are recorded."""

    place: int
    tag: str
    values: list[str]


class HeaderElements:
    """The recorded attributes of a header by level; empty ones are as good as absent."""

    __slots__ = ("identifiers", "instance", "series", "study")

    def __init__(self, elements: Iterable[Element | None]) -> None:
        self.study: Attributes = {}
        self.series: Attributes = {}
        self.instance: Attributes = {}
        identifiers: Attributes = {}
        places = (self.study, self.series, self.instance, identifiers)
        for element in elements:
            if element is not None:
                places[element.place][element.tag] = element.values
        self.identifiers = {tag: values[0] for tag, values in identifiers.items()}


def header_elements(elements: Any) -> HeaderElements:
    """From the parsed ``image.elements``. Raises ``InvalidInput`` when that is not what it has to be."""
    if not isinstance(elements, list):
        raise InvalidInput("image.elements is no list")
    return HeaderElements([_element(item) for item in elements])


def cut_document(data: bytes) -> tuple[dict[str, Any], HeaderElements] | None:
    """The document without its elements, and what those say; None when it is spelled in another way than our own.

    Raises ``InvalidInput`` as ``header_elements``.
    """
    head, first, rest = data.partition(_FIRST)
    body, last, tail = rest.partition(_LAST)
    if not first or not last or not head.startswith(b'{"image":{') or head.count(b"{") != 2:
        return None
    try:
        document = orjson.loads(b"".join((head, b'"elements":[]},"store":', tail)))
        header = HeaderElements(_read(_cut(body)))
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document["image"], dict) or document["image"].get("elements") != []:  # said twice
        return None
    return document, header


def _cut(body: bytes) -> list[bytes]:
    """The elements' texts, without what stands between them; those within items stay together."""
    pieces: list[bytes] = []
    start = 0
    while (sequence := body.find(_ITEMS, start)) >= 0:
        before = body.rfind(_NEXT, start, sequence)
        if before >= 0:
            pieces += body[start:before].split(_NEXT)
            start = before + len(_NEXT)
        end = body.find(_AFTER_ITEMS, sequence)
        if end < 0:
            return [*pieces, body[start:]]
        pieces.append(body[start : end + 2])
        start = end + len(_AFTER_ITEMS)
    return [*pieces, *body[start:].split(_NEXT)]


def _read(pieces: list[bytes]) -> Iterable[Element | None]:
    read = _remembered if max(map(len, pieces)) <= _REMEMBERED_LENGTH else _read_one
    return map(read, pieces)


def _read_one(piece: bytes) -> Element | None:
    return _remembered(piece) if len(piece) <= _REMEMBERED_LENGTH else _parsed(piece)


def _parsed(piece: bytes) -> Element | None:
    return _element(orjson.loads(b'{"group":"' + piece + b"}"))


_remembered = lru_cache(maxsize=_REMEMBERED)(_parsed)


def _element(item: Any) -> Element | None:
    """What is recorded of an element; None of one that the manifest does not know, or that is empty."""
    try:
        group, element = item["group"], item["element"]
        if type(group) is not str or type(element) is not str:  # early producers wrote the halves as numbers
            group, element = _half(group), _half(element)
        attribute = _WANTED.get(group + element)
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
