"""Query parameters of QIDO-RS as a manifest query (PS3.18 section 8.3.4 and table 8.3.4-1).

What is not a DICOM attribute, or has a value that cannot be used, is refused. An attribute that is not recorded is left
out with a warning, as section 8.3.4.1 allows: the answer then holds more than was asked for. Dates and times are
combined, as section 10.6 wants it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import (
    ATTRIBUTES,
    MATCHED_TAGS,
    RETURNABLE_TAGS,
    UNIQUE_KEYS,
    default_tags,
    levels_down_to,
)
from imaging_services.domain.manifest.query import Level, Query

_MATCHING = ("fuzzymatching", "emptyvaluematching", "multiplevaluematching")
CONTROLS = frozenset({"limit", "offset", "includefield", "accept", "charset", *_MATCHING})
"""Parameters that are not attributes."""
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
# Values of these may be given as a comma separated list (PS3.18 section 8.3.4.2 for UIDs); a name or a description
# may hold a comma of its own.
_LIST_VRS = frozenset({"UI", "CS"})


@dataclass(frozen=True, slots=True)
class Search:
    """A query, the page it asks for, and what to warn the client of. ``query.limit`` is one more than ``limit``, so
    that it shows whether there is more."""

    query: Query
    limit: int
    warnings: list[str] = field(default_factory=list)


def parse_search(
    level: Level,
    provider: str,
    path_uids: Mapping[str, str],
    parameters: Iterable[tuple[str, str]],
    *,
    default_limit: int,
    max_limit: int,
) -> Search:
    """Read the parameters. Raises ``InvalidInput`` that names the one which cannot be used."""
    controls: dict[str, list[str]] = {}
    filters: dict[str, tuple[str, ...]] = {tag: (uid,) for tag, uid in path_uids.items()}
    warnings: list[str] = []
    for name, value in parameters:
        if name.lower() in CONTROLS:
            controls.setdefault(name.lower(), []).append(value)
        else:
            _add_filter(path_uids, filters, warnings, name, value)
    include, include_all = _include_fields(level, controls.get("includefield", []), warnings)
    fuzzy, empty_values, every_value = (_switched_on(controls, name) for name in _MATCHING)
    limit = min(_number(controls, "limit", default_limit), max_limit)
    query = Query(
        level,
        provider,
        filters,
        fuzzy=fuzzy,
        combined=True,
        empty_values=empty_values,
        every_value=every_value,
        include=include | _of_levels_above(level, path_uids),
        include_all=include_all,
        limit=limit + 1,
        offset=_number(controls, "offset", 0),
    )
    return Search(query, limit, warnings)


def tag_of(name: str) -> str:
    """The tag of a keyword or of eight hex digits; of an attribute within items all tags of the way to it, joined by
    dots as the names are. Raises ``InvalidInput`` when it is neither."""
    if "." in name:
        return ".".join(tag_of(part) for part in name.split("."))
    if _TAG.fullmatch(name):
        return name.upper()
    tag = tag_for_keyword(name) if name else None  # the dictionary knows elements without a keyword
    if tag is None:
        raise InvalidInput(f"{name[:64]!r} is neither a parameter of a search nor a DICOM attribute")
    return f"{tag:08X}"


def keyword_of(tag: str) -> str:
    """The keyword of a tag; the tag where the dictionary has none."""
    return ".".join(keyword_for_tag(int(part, 16)) or part for part in tag.split("."))


def _of_levels_above(level: Level, path_uids: Mapping[str, str]) -> frozenset[str]:
    """Where the path leaves the study or series open, results tell of them as well (section 10.6.3.3)."""
    above = [one for one in levels_down_to(level)[1:-1] if UNIQUE_KEYS[one][-1] not in path_uids]
    return frozenset(tag for one in above for tag in default_tags(one))


def _add_filter(
    path_uids: Mapping[str, str],
    filters: dict[str, tuple[str, ...]],
    warnings: list[str],
    name: str,
    value: str,
) -> None:
    tag = tag_of(name)
    if tag in path_uids:
        if value not in ("", path_uids[tag]):
            raise InvalidInput(f"{name} differs from the path")
    elif tag not in MATCHED_TAGS:
        warnings.append(f"{keyword_of(tag)} is not recorded and was not matched")
    else:
        values = _split(ATTRIBUTES[tag].vr, value)
        filters[tag] = filters.get(tag, ()) + values


def _split(vr: str, value: str) -> tuple[str, ...]:
    separators = r"[,\\]" if vr in _LIST_VRS else r"\\"
    return tuple(item.strip() for item in re.split(separators, value) if item.strip())


def _include_fields(level: Level, values: Iterable[str], warnings: list[str]) -> tuple[frozenset[str], bool]:
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    tags = {tag_of(name)[:8] for name in names if name.lower() != "all"}  # of an item's attribute the sequence
    unknown = sorted(tags - RETURNABLE_TAGS[level])
    if unknown:
        keywords = ", ".join(map(keyword_of, unknown))
        warnings.append(f"not recorded at this level and not included: {keywords}")
    return frozenset(tags - set(unknown)), any(name.lower() == "all" for name in names)


def _number(controls: Mapping[str, list[str]], name: str, default: int) -> int:
    values = controls.get(name)
    if values is None:
        return default
    text = values[0].strip()
    if len(values) > 1 or not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInput(f"{name} is not a whole number from 0")
    return int(text)


def _switched_on(controls: Mapping[str, list[str]], name: str) -> bool:
    values = controls.get(name, ["false"])
    if len(values) > 1 or values[0].lower() not in ("true", "false"):
        raise InvalidInput(f"{name} is true or false")
    return values[0].lower() == "true"
