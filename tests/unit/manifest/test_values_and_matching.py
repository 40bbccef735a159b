"""Canonical values and matching, case by case."""

import pytest
from pydicom.datadict import dictionary_keyword, dictionary_VR

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import ATTRIBUTES, RETURNABLE_TAGS, SEARCHABLE_TAGS, UNIQUE_KEYS
from imaging_services.domain.manifest.matching import parse_filters
from imaging_services.domain.manifest.query import Level, Query
from imaging_services.domain.manifest.results import dicom_json
from imaging_services.domain.manifest.values import (
    clean_text,
    clean_values,
    date_time_key,
    name_keys,
    name_words,
    time_key,
    whole_number,
)


@pytest.mark.parametrize("tag", sorted(ATTRIBUTES))
def test_attributes_are_those_of_the_dictionary(tag):
    assert ATTRIBUTES[tag].keyword == dictionary_keyword(int(tag, 16))
    assert ATTRIBUTES[tag].vr in dictionary_VR(int(tag, 16))


def test_levels_contain_those_above():
    assert SEARCHABLE_TAGS[Level.STUDY] < SEARCHABLE_TAGS[Level.SERIES] < SEARCHABLE_TAGS[Level.IMAGE]
    for level, tags in UNIQUE_KEYS.items():
        assert set(tags) <= SEARCHABLE_TAGS[level] <= RETURNABLE_TAGS[level]


def test_text_loses_what_no_database_holds():
    assert clean_text(" a\x00b\x1b \x00") == "ab"
    assert clean_text("first\r\nsecond") == "first\r\nsecond"
    assert len(clean_text("x" * 5000)) == 1000


def test_numbers_have_one_spelling():
    assert clean_values("IS", [" 007", "+3 ", "1_0", "x", ""]) == ["7", "3", "1_0", "x"]
    assert clean_values("DS", ["1.50", "1e1", "-0.25", "nan", "1e999"]) == ["1.5", "10", "-0.25", "nan", "1e999"]
    assert whole_number("2147483648") is None


@pytest.mark.parametrize(
    ("value", "key"),
    [("10", "100000.000000"), ("10:30", "103000.000000"), ("103015.5", "103015.500000"), ("1", None), ("noon", None)],
)
def test_times(value, key):
    assert time_key(value) == key


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("2024", "20240101000000.000000"),
        ("2024-0500", "20240101000000.000000"),
        ("20240203101112.25+0100", "20240203101112.250000"),
        ("2024.5", None),
        ("x", None),
    ],
)
def test_date_times(value, key):
    assert date_time_key(value) == key


def test_names():
    assert name_keys("Yamada^Tarou^^=山田^太郎= ") == ["yamada^tarou", "山田^太郎"]
    assert name_words("Müller-Lüdenscheid^Jürgen") == ["muller", "ludenscheid", "jurgen"]


def hit(tag: str, key: str, *values: str, fuzzy: bool = False) -> bool:
    (one,) = parse_filters(Query(Level.IMAGE, filters={tag: (key,)}, fuzzy=fuzzy))
    return one.matches(values)


@pytest.mark.parametrize(
    ("tag", "key", "value", "expected"),
    [
        ("00100010", "DOE^JOHN", "Doe^John^^", True),
        ("00100010", "doe", "Doe^John", False),
        ("00100010", "doe*", "Doe^John", True),
        ("00100010", "Yamada*=山田*", "Yamada^Tarou=山田^太郎", True),
        ("00100010", "Yamada*=佐藤*", "Yamada^Tarou=山田^太郎", False),
        ("00080060", "CT", "CT", True),
        ("00080060", "ct", "CT", False),
        ("00100020", "A*Z", "AZ", True),
        ("00100020", "A?Z", "AZ", False),
        ("00100020", "A[1]", "A1", False),
        ("00200011", "01", "1", True),
        ("0008002A", "2019-2020", "20191231235959", True),
        ("0008002A", "2019-2020", "20210101", False),
        ("0008002A", "202001-", "20200101", True),
        ("00080023", "2020.01.02", "20200102", True),
    ],
)
def test_matching(tag, key, value, expected):
    assert hit(tag, key, value) is expected


def test_any_value_of_several_matches():
    assert hit("00080008", "PRIMARY", "ORIGINAL", "PRIMARY")
    assert not hit("00080008", "PRIMARY")


def test_fuzzy_takes_words_in_any_order():
    assert hit("00100010", "jurg mull", "Müller^Jürgen", fuzzy=True)
    assert not hit("00100010", "jurg mull", "Müller^Jürgen")


@pytest.mark.parametrize("values", [(), ("",), ("*",), ("**",), ("CT", "")])
def test_universal_matching_is_no_filter(values):
    assert parse_filters(Query(Level.STUDY, filters={"00080061": values, "00080020": values})) == []


def test_too_many_values():
    with pytest.raises(InvalidInput, match="StudyInstanceUID"):
        parse_filters(Query(Level.STUDY, filters={"0020000D": ("1.2",) * 10_001}))


def test_results_are_typed():
    recorded = {
        "00100010": ["Yamada^Tarou=山田^太郎"],
        "00200013": ["7"],
        "00280010": ["512"],
        "00280030": ["0.5", "2"],
        "00281050": ["many"],
        "00280011": ["wide"],
    }
    assert dicom_json(recorded, frozenset(recorded)) == {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]},
        "00200013": {"vr": "IS", "Value": [7]},
        "00280010": {"vr": "US", "Value": [512]},
        "00280030": {"vr": "DS", "Value": [0.5, 2]},
        "00281050": {"vr": "DS", "Value": ["many"]},
    }
