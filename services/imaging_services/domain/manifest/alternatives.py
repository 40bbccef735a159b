"""What a matching value says (PS3.4 section C.2.2.2): one alternative for each value of a key."""

import re
from dataclasses import dataclass
from datetime import date

from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import Attribute
from imaging_services.domain.manifest.query import Query
from imaging_services.domain.manifest.values import (
    date_key,
    date_time_key,
    decimal_number,
    moved,
    name_keys,
    name_words,
    time_key,
    whole_number,
    zone_minutes,
)

_OFFSET = r"[+-](?:0[0-9]|1[0-4])[0-5][0-9]"
_DATE_TIME = rf"[0-9]{{4,14}}(?:\.[0-9]{{1,6}})?(?:{_OFFSET})?"
_DATE_TIME_RANGE = re.compile(rf"({_DATE_TIME})?-({_DATE_TIME})?")
_KEYS = {"DA": date_key, "TM": time_key, "DT": date_time_key}
_EMPTY = '""'


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
    """A date (DA), time (TM) or date-time (DT) whose canonical form lies between both bounds, inclusive. The bounds of
    a date-time may be in a time ``zone`` (minutes from UTC)."""

    vr: str
    low: str | None
    high: str | None
    zone: int | None = None

    def matches(self, value: str, recorded_zone: int | None = None) -> bool:
        """Whether one recorded value matches; what is no date or time never does. ``recorded_zone`` is that of a value
        which does not say it; without one it is taken to be in the zone of the bounds."""
        key = _KEYS[self.vr](value)
        if key is not None and self.zone is not None:
            own = zone_minutes(value)
            own = recorded_zone if own is None else own
            key = key if own is None else moved(key, self.zone - own)
        return key is not None and (self.low is None or key >= self.low) and (self.high is None or key <= self.high)


@dataclass(frozen=True, slots=True)
class Empty:
    """No value at all."""


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


Alternative = Equal | Wildcard | Between | Name | NameWords | Empty


def read_alternative(query: Query, attribute: Attribute, value: str, zone: int | None) -> Alternative:
    """One value of a key; ``zone`` is that of the query's dates and times. Raises ``InvalidInput`` that names it."""
    vr = attribute.vr
    if query.empty_values and value == _EMPTY:
        return Empty()
    if vr == "PN":
        return _name(value, query.fuzzy)
    if vr in ("DA", "TM", "DT"):
        return _between(attribute, value, zone)
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


def _between(attribute: Attribute, value: str, zone: int | None) -> Between:
    low, high = _split_range(attribute, value)
    if not low and not high:
        raise InvalidInput(f"{attribute.keyword}: {value[:80]!r} has neither a beginning nor an end")
    bounds = _BOUNDS[attribute.vr]
    first, last = (bounds(low) if low else None), (bounds(high) if high else None)
    if (low and first is None) or (high and last is None):
        raise InvalidInput(f"{attribute.keyword}: {value[:80]!r} is not a {_KIND[attribute.vr]} or a range of them")
    between = Between(attribute.vr, first[0] if first else None, last[1] if last else None)
    return _in_one_zone(between, low, high, zone) if attribute.vr == "DT" else between


def _in_one_zone(between: Between, low: str, high: str, zone: int | None) -> Between:
    """Both bounds of a date-time in one time zone: the query's, else that of a bound."""
    low_zone, high_zone = zone_minutes(low), zone_minutes(high)
    zone = next((one for one in (zone, low_zone, high_zone) if one is not None), None)

    def move(key: str | None, own: int | None) -> str | None:
        return key if key is None or zone is None or own is None else moved(key, zone - own) or key

    return Between(between.vr, move(between.low, low_zone), move(between.high, high_zone), zone)


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
