"""Attribute matching of PS3.4 section C.2.2.2: the text of a key becomes conditions, which both the database adapter
and the in-memory twin apply.

Kept from the Standard: single value, list of UID, universal, wild card, range and sequence matching; matching a
multi-valued attribute by any of its values; person names without regard to case; and what may be asked for besides:
combined date-time, fuzzy, empty value and multiple value matching. Choices of this product: several values in any
attribute are alternatives unless multiple value matching is asked for; a time or date-time key of less precision
covers all that begins with it; trailing empty name components do not count, and a name key without ``=`` may match any
of the three component groups.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.alternatives import Alternative, Between, Empty, read_alternative
from imaging_services.domain.manifest.attributes import (
    ATTRIBUTES,
    MATCHED_TAGS,
    TIMEZONE_OFFSET_FROM_UTC,
    Attribute,
    is_below,
)
from imaging_services.domain.manifest.items import read_item
from imaging_services.domain.manifest.moments import TIME_OF_DATE, Moments, moments
from imaging_services.domain.manifest.query import Level, Query
from imaging_services.domain.manifest.values import clean_text, zone_minutes

_MAX_ALTERNATIVES = 10_000
_SEVERAL = frozenset({"AE", "AS", "AT", "CS", "LO", "PN", "SH", "UC"})  # section C.2.2.2.8


@dataclass(frozen=True, slots=True)
class Filter:
    """An attribute and the alternatives of which one has to match one of its values."""

    attribute: Attribute
    alternatives: tuple[Alternative, ...]

    @property
    def level(self) -> Level:
        """Where the attribute is recorded."""
        return self.attribute.level

    def matches(self, recorded: Mapping[str, Sequence[str]]) -> bool:
        """Whether a record, or an item of a sequence, matches."""
        values = recorded.get(self.attribute.own_tag, ())
        if not values:
            return Empty() in self.alternatives
        zone = zone_minutes(next(iter(recorded.get(TIMEZONE_OFFSET_FROM_UTC, ())), ""))
        return any(_matches(alternative, value, zone) for alternative in self.alternatives for value in values)


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """A sequence of which one item has to match all the filters (section C.2.2.2.6)."""

    sequence: Attribute
    filters: tuple[Filter, ...]

    @property
    def level(self) -> Level:
        """Where the sequence is recorded."""
        return self.sequence.level

    def matches(self, recorded: Mapping[str, Sequence[str]]) -> bool:
        """Whether a record matches."""
        return any(matches_all(self.filters, read_item(item)) for item in recorded.get(self.sequence.tag, ()))


Condition = Filter | ItemFilter | Moments


def parse_filters(query: Query) -> list[Condition]:
    """The query's conditions without those of universal matching. Raises ``InvalidInput`` that names a bad value, or an
    attribute that cannot be matched."""
    zone = _zone(query)
    found: dict[str, list[Filter]] = {}
    for tag, values in query.filters.items():
        if tag != TIMEZONE_OFFSET_FROM_UTC:
            found[tag] = _filters(query, tag, [clean_text(value) for value in values], zone)
    conditions: list[Condition] = [*_take_moments(found, query, zone), *_take_items(found)]
    return [*conditions, *(one for several in found.values() for one in several)]


def matches_all(conditions: Iterable[Condition], recorded: Mapping[str, Sequence[str]]) -> bool:
    """Whether a record with these attributes passes every condition."""
    return all(one.matches(recorded) for one in conditions)


def split_by_level(conditions: Iterable[Condition], level: Level) -> tuple[list[Condition], list[Condition]]:
    """Those of the level and the levels above, and those below it: a record matches these when one and the same series,
    or instance, of it does (relational queries, PS3.4 section C.4.1.3.2.1)."""
    above: list[Condition] = []
    below: list[Condition] = []
    for one in conditions:
        (below if is_below(one.level, level) else above).append(one)
    return above, below


def _matches(alternative: Alternative, value: str, zone: int | None) -> bool:
    if isinstance(alternative, Between):
        return alternative.matches(value, zone)
    return not isinstance(alternative, Empty) and alternative.matches(value)


def _zone(query: Query) -> int | None:
    """The time zone of the query's dates and times, minutes from UTC."""
    values = [value for value in query.filters.get(TIMEZONE_OFFSET_FROM_UTC, ()) if value]
    zone = zone_minutes(values[0]) if len(values) == 1 and len(values[0]) == len("+0000") else None
    if values and zone is None:
        keyword = ATTRIBUTES[TIMEZONE_OFFSET_FROM_UTC].keyword
        raise InvalidInput(f"{keyword}: {values[0][:80]!r} is not an offset such as +0100")
    return zone


def _take_moments(found: dict[str, list[Filter]], query: Query, zone: int | None) -> Iterable[Moments]:
    """Take out the dates that are moments: with their time when that is asked for, or in a time zone."""
    for date_tag, time_tag in TIME_OF_DATE.items():
        days = [(one.low, one.high) for one in _betweens(found.get(date_tag))]
        times = [(one.low, one.high) for one in _betweens(found.get(time_tag))]
        together = query.combined and len(days) == len(times) == 1
        if together or (days and zone is not None):
            taken = moments(date_tag, days, times[0] if together else (None, None), zone)
            if taken is not None:
                yield taken
                for tag in (date_tag, time_tag) if together else (date_tag,):
                    del found[tag]


def _betweens(filters: Sequence[Filter] | None) -> list[Between]:
    """The ranges of an attribute's only filter, when it has nothing else."""
    alternatives = filters[0].alternatives if filters and len(filters) == 1 else ()
    ranges = [one for one in alternatives if isinstance(one, Between)]
    return ranges if len(ranges) == len(alternatives) else []


def _take_items(found: dict[str, list[Filter]]) -> Iterable[ItemFilter]:
    """Take out the attributes of items: those of one sequence belong together."""
    sequences: dict[str, list[Filter]] = {}
    for tag in [tag for tag in found if "." in tag]:
        sequences.setdefault(tag[:8], []).extend(found.pop(tag))
    return [ItemFilter(ATTRIBUTES[tag], tuple(filters)) for tag, filters in sequences.items() if filters]


def _filters(query: Query, tag: str, values: list[str], zone: int | None) -> list[Filter]:
    if not values or any(not value.strip("*") for value in values):
        return []  # universal matching (section C.2.2.2.3); a lone * is the same as no value (C.2.2.2.4)
    if tag not in MATCHED_TAGS:
        raise InvalidInput(f"{tag} cannot be matched")
    attribute = ATTRIBUTES[tag]
    if len(values) > _MAX_ALTERNATIVES:
        raise InvalidInput(f"{attribute.keyword}: more than {_MAX_ALTERNATIVES} values")
    alternatives = [read_alternative(query, attribute, value, zone) for value in values]
    if query.every_value and attribute.vr in _SEVERAL:
        return [Filter(attribute, (one,)) for one in alternatives]
    return [Filter(attribute, tuple(alternatives))]
