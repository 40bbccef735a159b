"""Attributes that hold for one frame: of its own functional groups, the shared ones, or the image (PS3.3 C.7.6.16)."""

import math
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.multival import MultiValue

_GROUPS = (("PerFrameFunctionalGroupsSequence", True), ("SharedFunctionalGroupsSequence", False))


def macro(header: Dataset, keyword: str, number: int) -> Dataset:
    """The item of a functional group macro for frame ``number``, from 1; the header itself when there is none."""
    for groups, per_frame in _GROUPS:
        items = items_of(header, groups)
        index = number - 1 if per_frame else 0
        found = items_of(items[index], keyword) if index < len(items) else ()
        if found:
            return found[0]
    return header


def first_item(dataset: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence, or None."""
    items = items_of(dataset, keyword)
    return items[0] if items else None


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """The values of an element as numbers; empty when it is absent or one of them is no finite number."""
    try:
        value = dataset.get(keyword)
        values = [] if value is None else list(value) if isinstance(value, MultiValue | list | tuple) else [value]
        found = [float(one) for one in values]
    except (TypeError, ValueError):
        return []
    return found if all(map(math.isfinite, found)) else []


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value as a number, or None."""
    values = numbers(dataset, keyword)
    return values[0] if values else None


def text(dataset: Dataset, keyword: str) -> str:
    """A coded string; empty when it is absent."""
    value = dataset.get(keyword)
    return str(value).strip().upper() if value is not None else ""


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """The values as coded strings."""
    value = dataset.get(keyword)
    values = [] if value is None else [value] if isinstance(value, str) else list(value)
    return [str(one).strip().upper() for one in values]


def items_of(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence; none when it is absent or is no sequence."""
    if keyword not in dataset:
        return ()
    value = dataset[keyword].value
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()
