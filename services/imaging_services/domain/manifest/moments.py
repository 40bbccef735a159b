"""Dates and times as moments: combined date-time matching, and dates in a given time zone (PS3.4 section C.2.2.2.5).

A record without a time matches by its date alone. One that does not say its time zone (Timezone Offset From UTC) is
taken to be in that of the query.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imaging_services.domain.manifest.attributes import ATTRIBUTES, TIMEZONE_OFFSET_FROM_UTC, Attribute
from imaging_services.domain.manifest.query import Level
from imaging_services.domain.manifest.values import date_key, moved, time_key, zone_minutes

TIME_OF_DATE = {
    "00080020": "00080030",
    "00080021": "00080031",
    "00080022": "00080032",
    "00080023": "00080033",
    "00100030": "00100032",
    "00400244": "00400245",
}
"""The time that belongs to a date."""

FIRST, LAST = "000000.000000", "235959.999999"

Span = tuple[str | None, str | None]
"""First and last moment, as keys of date-times; None: open."""


@dataclass(frozen=True, slots=True)
class Moments:
    """A date with its time that lies within one of the spans, which are in the time ``zone`` (minutes from UTC)."""

    date: Attribute
    time: Attribute
    spans: tuple[Span, ...]
    zone: int | None

    @property
    def level(self) -> Level:
        """Where the date is recorded."""
        return self.date.level

    def matches(self, recorded: Mapping[str, Sequence[str]]) -> bool:
        """Whether a record matches."""
        day = date_key(_first(recorded, self.date.tag))
        if day is None:
            return False
        time = time_key(_first(recorded, self.time.tag))
        if time is None:
            return any(_within(day, low and low[:8], high and high[:8]) for low, high in self.spans)
        zone = zone_minutes(_first(recorded, TIMEZONE_OFFSET_FROM_UTC))
        moment = moved(day + time, self.zone - zone) if self.zone is not None and zone is not None else day + time
        return moment is not None and any(_within(moment, low, high) for low, high in self.spans)


def moments(date_tag: str, days: Sequence[Span], times: Span, zone: int | None) -> Moments | None:
    """The moments between these days, from the first time on the first to the second on the last; None where a time
    has no day that it could belong to."""
    first, last = times
    if any((first and not low) or (last and not high) for low, high in days):
        return None
    spans = tuple((low and low + (first or FIRST), high and high + (last or LAST)) for low, high in days)
    return Moments(ATTRIBUTES[date_tag], ATTRIBUTES[TIME_OF_DATE[date_tag]], spans, zone)


def _first(recorded: Mapping[str, Sequence[str]], tag: str) -> str:
    return next(iter(recorded.get(tag, ())), "")


def _within(key: str, low: str | None, high: str | None) -> bool:
    return (low is None or key >= low) and (high is None or key <= high)
