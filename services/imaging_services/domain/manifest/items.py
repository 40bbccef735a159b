"""Items of recorded sequences: each is JSON text with the values of its recorded attributes by tag, so that recorded
values stay text throughout."""

from collections.abc import Mapping
from typing import Any

import orjson

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import ATTRIBUTES
from imaging_services.domain.manifest.values import MAX_VALUES, clean_values

Item = dict[str, list[str]]


def item_text(item: Mapping[str, Any]) -> str:
    """The same item always gives the same text."""
    return orjson.dumps(item, option=orjson.OPT_SORT_KEYS).decode()


def read_item(text: str) -> Item:
    """The item of such a text."""
    item: Item = orjson.loads(text)
    return item


def recorded_items(tag: str, items: Any) -> list[str]:
    """What is recorded of a sequence in an ``ImageStoredEvent``; ``items`` is a list of lists of elements. Raises
    ``InvalidInput`` when it is not."""
    if items is None:
        return []
    try:
        read = [_recorded(tag, item) for item in items[:MAX_VALUES]]
    except (TypeError, KeyError, AttributeError):
        raise InvalidInput(f"element {tag}: items is no list of lists of elements") from None
    return [item_text(item) for item in read if item]


def _recorded(tag: str, elements: list[dict[str, Any]]) -> Item:
    item: Item = {}
    for element in elements:
        own = element["group"] + element["element"]
        attribute = ATTRIBUTES.get(f"{tag}.{own}".upper())
        if attribute is not None:
            values = element.get("values") or [element.get("value")]
            texts = clean_values(attribute.vr, [value for value in values if value is not None])
            if texts:
                item[attribute.own_tag] = texts
    return item
