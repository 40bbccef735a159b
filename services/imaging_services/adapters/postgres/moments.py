"""Dates and times as SQL conditions."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from imaging_services.domain.manifest.moments import Moments, Span

Bind = Callable[[Any], str]
"""Gives the placeholder of a value."""


def between(bind: Bind, expression: str, low: str | None, high: str | None) -> str:
    """Between both bounds, inclusive."""
    terms = []
    if low is not None:
        terms.append(f"{expression} >= {bind(low)}")
    if high is not None:
        terms.append(f"{expression} <= {bind(high)}")
    return "(" + " AND ".join(terms) + ")"


def in_spans(bind: Bind, moments: Moments, day: str, clock: str, recorded_zone: str) -> str:
    """A date with its time within one of the spans. The days come first, since they have an index; a record without a
    time has but its date."""
    zone = f"{bind(moments.zone)}::int"
    moment = f"dicom_moment({day}, {clock}, {recorded_zone}, {zone})"
    terms = []
    for low, high in moments.spans:
        days = between(bind, day, *_days(low, high, apart=moments.zone is not None))
        dates = between(bind, moment, low and low[:8], high and high[:8])
        exact = between(bind, moment, low, high)
        terms.append(f"({days} AND CASE WHEN length({moment}) = 8 THEN {dates} ELSE {exact} END)")
    return "(" + " OR ".join(terms) + ")"


def _days(low: str | None, high: str | None, *, apart: bool) -> Span:
    """The days of a span; with time zones a day more on either side."""
    days = int(apart)
    return low and _day(low, -days), high and _day(high, days)


def _day(moment: str, days: int) -> str:
    day = date(int(moment[:4]), int(moment[4:6]), int(moment[6:8]))
    try:
        return f"{(moved := day + timedelta(days)).year:04}{moved:%m%d}"
    except OverflowError:
        return moment[:8]
