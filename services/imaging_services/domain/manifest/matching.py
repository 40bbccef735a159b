"""Attribute matching of PS3.4 section C.2.2.2: the text of a key becomes filters, which both the database adapter and
the in-memory twin apply.

Kept from the Standard: single value, list of UID, universal, wild card and range matching; matching a multi-valued
attribute by any of its values; person names without regard to case. Choices of this product: several values in any
attribute are alternatives; a time or date-time key of less precision covers all that begins with it; trailing empty
name components do not count, and a name key without ``=`` may match any of the three component groups; dates and times
are compared independently of each other (no combined date-time negotiation).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import ATTRIBUTES, SEARCHABLE_TAGS, Attribute
from imaging_services.domain.manifest.query import Query
from imaging_services.domain.manifest.values import (
    clean_text,
    date_key,
    date_time_key,
    decimal_number,
    name_keys,
    name_words,
    time_key,
    whole_number,
)

_MAX_ALTERNATIVES = 10_000
_OFFSET = r"[+-](?:0[0-9]|1[0-4])[0-5][0-9]"
_DATE_TIME = rf"[0-9]{{4,14}}(?:\.[0-9]{{1,6}})?(?:{_OFFSET})?"
_DATE_TIME_RANGE = re.compile(rf"({_DATE_TIME})?-({_DATE_TIME})?")
_KEYS = {"DA": date_key, "TM": time_key, "DT": date_time_key}


@dataclass(frozen=True, slots=True)
class Equal:
    """A value equal to this one."""

    value: str

    def matches(self, value: str) -> bool:
        """Whether one recorded value (or name key) matches."""
        return value == self.value


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A value of this pattern: ``*`` stands for any characters, ``?`` for one."""

    pattern: str

    def matches(self, value: str) -> bool:
        """Whether one recorded value (or name key) matches."""
        expression = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in self.pattern)
        return re.fullmatch(expression, value, re.DOTALL) is not None


@dataclass(frozen=True, slots=True)
class Between:
    """A date (DA), time (TM) or date-time (DT) whose canonical form lies between both bounds, inclusive."""

    vr: str
    low: str | None
    high: str | None

    def matches(self, value: str) -> bool:
        """Whether one recorded value matches; what is no date or time never does."""
        key = _KEYS[self.vr](value)
        return key is not None and (self.low is None or key >= self.low) and (self.high is None or key <= self.high)


@dataclass(frozen=True, slots=True)
class Name:
    """A person name: each of these matches one of its component groups' keys."""

    groups: tuple[Equal | Wildcard, ...]

    def matches(self, value: str) -> bool:
        """Whether one recorded person name matches."""
        keys = name_keys(value)
        return all(any(group.matches(key) for key in keys) for group in self.groups)


@dataclass(frozen=True, slots=True)
class NameWords:
    """A person name of which each of these words begins some word; without regard to accents and order."""

    words: tuple[str, ...]

    def matches(self, value: str) -> bool:
        """Whether one recorded person name matches."""
        recorded = name_words(value)
        return all(any(known.startswith(word) for known in recorded) for word in self.words)


Alternative = Equal | Wildcard | Between | Name | NameWords


@dataclass(frozen=True, slots=True)
class Filter:
    """An attribute and the alternatives of which one has to match one of its values."""

    attribute: Attribute
    alternatives: tuple[Alternative, ...]

    def matches(self, values: Iterable[str]) -> bool:
        """Whether an attribute with these recorded values matches."""
        recorded = list(values)
        return any(alternative.matches(value) for alternative in self.alternatives for value in recorded)


def parse_filters(query: Query) -> list[Filter]:
    """The query's filters without those of universal matching. Raises ``InvalidInput`` that names a bad value, or an
    attribute that cannot be matched at the level."""
    filters = []
    for tag, values in query.filters.items():
        alternatives = _alternatives(query, tag, [clean_text(value) for value in values])
        if alternatives:
            filters.append(Filter(ATTRIBUTES[tag], tuple(alternatives)))
    return filters


def matches_all(filters: Sequence[Filter], recorded: Mapping[str, Sequence[str]]) -> bool:
    """Whether a record with these attributes passes every filter."""
    return all(one.matches(recorded.get(one.attribute.tag, ())) for one in filters)


def _alternatives(query: Query, tag: str, values: list[str]) -> list[Alternative]:
    if not values or any(not value.strip("*") for value in values):
        return []  # universal matching (section C.2.2.2.3); a lone * is the same as no value (C.2.2.2.4)
    if tag not in SEARCHABLE_TAGS[query.level]:
        raise InvalidInput(f"{tag} cannot be matched at the {query.level} level")
    if len(values) > _MAX_ALTERNATIVES:
        raise InvalidInput(f"{ATTRIBUTES[tag].keyword}: more than {_MAX_ALTERNATIVES} values")
    return [_alternative(ATTRIBUTES[tag], value, query.fuzzy) for value in values]


def _alternative(attribute: Attribute, value: str, fuzzy: bool) -> Alternative:
    vr = attribute.vr
    if vr == "PN":
        return _name(value, fuzzy)
    if vr in ("DA", "TM", "DT"):
        return _between(attribute, value)
    if vr == "UI":
        return _uid(attribute, value)
    if vr in ("IS", "US", "DS"):
        return _number(attribute, value)
    return _text(value)


def _text(value: str) -> Equal | Wildcard:
    return Wildcard(value) if "*" in value or "?" in value else Equal(value)


def _uid(attribute: Attribute, value: str) -> Equal:
    if not is_uid(value):
        raise InvalidInput(f"{attribute.keyword}: {value[:80]!r} is not a UID")
    return Equal(value)


def _number(attribute: Attribute, value: str) -> Equal:
    number = decimal_number(value) if attribute.vr == "DS" else whole_number(value)
    if number is None:
        raise InvalidInput(f"{attribute.keyword}: {value[:80]!r} is not a number")
    return Equal(str(number))


def _name(value: str, fuzzy: bool) -> Name | NameWords:
    prefixes = re.sub(r"\*(?=[\s^=,]|$)", "", value)
    words = name_words(prefixes)
    if fuzzy and words and "*" not in prefixes and "?" not in prefixes:
        return NameWords(tuple(words))
    return Name(tuple(_text(key) for key in name_keys(value)))


def _between(attribute: Attribute, value: str) -> Between:
    low, high = _split_range(attribute, value)
    if not low and not high:
        raise InvalidInput(f"{attribute.keyword}: {value[:80]!r} has neither a beginning nor an end")
    bounds = _BOUNDS[attribute.vr]
    first, last = (bounds(low) if low else None), (bounds(high) if high else None)
    if (low and first is None) or (high and last is None):
        raise InvalidInput(f"{attribute.keyword}: {value[:80]!r} is not a {_KIND[attribute.vr]} or a range of them")
    return Between(attribute.vr, first[0] if first else None, last[1] if last else None)


def _split_range(attribute: Attribute, value: str) -> tuple[str, str]:
    if attribute.vr == "DT":
        if date_time_key(value):  # 2020-0500 is a value with an offset, not a range (section C.2.2.2.5)
            return value, value
        match = _DATE_TIME_RANGE.fullmatch(value)
        return (match[1] or "", match[2] or "") if match else (value, value)
    low, dash, high = value.partition("-")
    return (low.strip(), high.strip()) if dash else (value, value)


def _date_bounds(value: str) -> tuple[str, str] | None:
    key = date_key(value)
    try:
        if key is not None:
            date(int(key[:4]), int(key[4:6]), int(key[6:]))
    except ValueError:
        return None
    return (key, key) if key else None


def _time_bounds(value: str) -> tuple[str, str] | None:
    digits = value.replace(":", "")
    low = time_key(value)
    if low is None or low[:2] > "23" or low[2:4] > "59" or low[4:6] > "60":
        return None
    return low, _ceiling(digits, "235959")


def _date_time_bounds(value: str) -> tuple[str, str] | None:
    text = re.sub(f"{_OFFSET}$", "", value)
    low = date_time_key(text)
    if low is None or _date_bounds(low[:8]) is None or _time_bounds(low[8:]) is None:
        return None
    return low, _ceiling(text, "99991231235959")


def _ceiling(text: str, latest: str) -> str:
    """The last moment that begins with the text."""
    whole, _, fraction = text.partition(".")
    return f"{whole}{latest[len(whole) :]}.{fraction:9<6}"


_BOUNDS = {"DA": _date_bounds, "TM": _time_bounds, "DT": _date_time_bounds}
_KIND = {"DA": "date", "TM": "time", "DT": "date-time"}
