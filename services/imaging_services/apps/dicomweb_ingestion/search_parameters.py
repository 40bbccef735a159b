"""Query parameters of QIDO-RS as a manifest query (PS3.18 section 8.3.4 and table 8.3.4-1).

What is not a DICOM attribute, or has a value that cannot be used, is refused. An attribute that is not recorded at
the level is left out with a warning, as section 8.3.4.1 allows: the answer then holds more than was asked for.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import ATTRIBUTES, RETURNABLE_TAGS, SEARCHABLE_TAGS
from imaging_services.domain.manifest.query import Level, Query

_CONTROLS = frozenset({"limit", "offset", "fuzzymatching", "includefield", "accept", "charset"})
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
        if name.lower() in _CONTROLS:
            controls.setdefault(name.lower(), []).append(value)
        else:
            _add_filter(level, path_uids, filters, warnings, name, value)
    include, include_all = _include_fields(level, controls.get("includefield", []), warnings)
    limit = min(_number(controls, "limit", default_limit), max_limit)
    query = Query(
        level,
        provider,
        filters,
        fuzzy=_fuzzy(controls),
        include=include,
        include_all=include_all,
        limit=limit + 1,
        offset=_number(controls, "offset", 0),
    )
    return Search(query, limit, warnings)


def tag_of(name: str) -> str:
    """The tag of a keyword or of eight hex digits. Raises ``InvalidInput`` when it is neither."""
    if _TAG.fullmatch(name):
        return name.upper()
    if "." in name:
        raise InvalidInput(f"{name!r}: attributes of sequence items are not searched")
    tag = tag_for_keyword(name)
    if tag is None:
        raise InvalidInput(f"{name[:64]!r} is neither a parameter of a search nor a DICOM attribute")
    return f"{tag:08X}"


def _add_filter(
    level: Level,
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
    elif tag not in SEARCHABLE_TAGS[level]:
        warnings.append(f"{keyword_for_tag(int(tag, 16)) or tag} is not recorded at this level and was not matched")
    else:
        values = _split(ATTRIBUTES[tag].vr, value)
        filters[tag] = filters.get(tag, ()) + values


def _split(vr: str, value: str) -> tuple[str, ...]:
    separators = r"[,\\]" if vr in _LIST_VRS else r"\\"
    return tuple(item.strip() for item in re.split(separators, value) if item.strip())


def _include_fields(level: Level, values: Iterable[str], warnings: list[str]) -> tuple[frozenset[str], bool]:
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    tags = {tag_of(name) for name in names if name.lower() != "all"}
    unknown = sorted(tags - RETURNABLE_TAGS[level])
    if unknown:
        keywords = ", ".join(keyword_for_tag(int(tag, 16)) or tag for tag in unknown)
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


def _fuzzy(controls: Mapping[str, list[str]]) -> bool:
    values = controls.get("fuzzymatching", ["false"])
    if len(values) > 1 or values[0].lower() not in ("true", "false"):
        raise InvalidInput("fuzzymatching is true or false")
    return values[0].lower() == "true"
