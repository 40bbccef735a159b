"""DICOM dates, times and names as FHIR says them."""

import datetime as dt
import re
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.apps.study_binding.fhir_values import (
    fhir_date,
    fhir_date_time,
    fhir_text,
    fhir_time,
    human_name,
    offset_zone,
    stable_id,
)

# FHIR R4 datatypes: dateTime
DATE_TIME = re.compile(
    r"([0-9]([0-9]([0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)(-(0[1-9]|1[0-2])(-(0[1-9]|[1-2][0-9]|3[0-1])"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?(Z|(\+|-)((0[0-9]|1[0-3]):[0-5][0-9]|14:00)))?)?)?"
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20240229", "2024-02-29"),
        ("2024.02.29", "2024-02-29"),
        (" 20240229 ", "2024-02-29"),
        ("20240229\0", "2024-02-29"),
        ("20230229", None),
        ("2024", None),
        ("202402", None),
        ("00000000", None),
        ("2024-02-29", None),
        ("20240229-20240301", None),
        ("٢٠٢٤٠٢٢٩", None),
        ("", None),
        (None, None),
    ],
)
def test_dates(value: str | None, expected: str | None) -> None:
    found = fhir_date(value)
    assert (found.isoformat() if found else None) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("101530", "10:15:30"),
        ("101530.123456", "10:15:30"),
        ("1015", "10:15:00"),
        ("10:15:30", "10:15:30"),
        ("10", None),
        ("1015300", None),
        ("246000", None),
        ("235960", None),
        ("", None),
        (None, None),
    ],
)
def test_times(value: str | None, expected: str | None) -> None:
    found = fhir_time(value)
    assert (found.isoformat() if found else None) == expected


@given(st.dates(), st.times(), st.sampled_from(["Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "UTC", None]))
def test_every_dicom_date_and_time_is_a_fhir_date_time(day: dt.date, clock: dt.time, zone: str | None) -> None:
    da, tm = day.strftime("%Y%m%d").zfill(8), clock.strftime("%H%M%S.%f")
    said = fhir_date_time(da, tm, ZoneInfo(zone) if zone else None)
    assert said is not None
    assert said.startswith(day.isoformat())
    if day.year >= 1900:  # before that, zones had local mean times with seconds
        assert DATE_TIME.fullmatch(said), said


@given(st.text(), st.text())
def test_any_text_is_a_date_time_or_nothing(da: str, tm: str) -> None:
    said = fhir_date_time(da, tm, ZoneInfo("Europe/Berlin"))
    assert said is None or DATE_TIME.fullmatch(said)


@pytest.mark.parametrize(
    ("value", "hours"),
    [("+0100", 1), ("-0330", -3.5), ("+0000", 0), ("+1400", 14), ("-1200", -12)],
)
def test_offsets(value: str, hours: float) -> None:
    zone = offset_zone(value)
    assert zone is not None
    assert zone.utcoffset(None) == dt.timedelta(hours=hours)


@pytest.mark.parametrize("value", ["0100", "+1500", "-1230", "+0160", "+01:00", "", None])
def test_wrong_offsets(value: str | None) -> None:
    assert offset_zone(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Doe^John", "John Doe"),
        ("Doe^John^Quincy^Dr^MD", "Dr John Quincy Doe MD"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Tarou Yamada"),
        ("=山田^太郎", "太郎 山田"),
        ("Doe", "Doe"),
        ("^^^^", None),
        ("", None),
        (None, None),
    ],
)
def test_names(value: str | None, expected: str | None) -> None:
    assert human_name(value) == expected


@given(st.text())
def test_texts_have_no_control_characters(value: str) -> None:
    text = fhir_text(value)
    assert text is None or re.fullmatch(r"[ \r\n\t\S]+", text, re.ASCII)
    assert text is None or text.encode()


def test_ids_are_stable_and_different() -> None:
    assert stable_id("a", "b") == stable_id("a", "b") != stable_id("a", "c")
    assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", stable_id("a"))
