"""Canonical values and matching, case by case."""

import pytest
from pydicom.datadict import dictionary_keyword, dictionary_VR

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import (
    ATTRIBUTES,
    MATCHED_TAGS,
    RETURNABLE_TAGS,
    SEARCHABLE_TAGS,
    UNIQUE_KEYS,
)
from imaging_services.domain.manifest.items import read_item, recorded_items
from imaging_services.domain.manifest.matching import matches_all, parse_filters
from imaging_services.domain.manifest.query import Level, Query
from imaging_services.domain.manifest.results import dicom_json
from imaging_services.domain.manifest.values import (
    clean_text,
    clean_values,
    date_time_key,
    moved,
    name_keys,
    name_words,
    time_key,
    whole_number,
    zone_minutes,
)


@pytest.mark.parametrize("tag", sorted(ATTRIBUTES))
def test_attributes_are_those_of_the_dictionary(tag):
    assert ATTRIBUTES[tag].keyword == ".".join(dictionary_keyword(int(part, 16)) for part in tag.split("."))
    assert ATTRIBUTES[tag].vr in dictionary_VR(int(tag[-8:], 16))


def test_levels_contain_those_above():
    assert SEARCHABLE_TAGS[Level.STUDY] < SEARCHABLE_TAGS[Level.SERIES] < SEARCHABLE_TAGS[Level.IMAGE]
    for level, tags in UNIQUE_KEYS.items():
        assert set(tags) <= SEARCHABLE_TAGS[level]
        assert {tag[:8] for tag in SEARCHABLE_TAGS[level]} <= RETURNABLE_TAGS[level]
    assert SEARCHABLE_TAGS[Level.IMAGE] == MATCHED_TAGS


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
    assert name_words("Sørensen^Łukasz Æþelstan Straße") == ["sorensen", "lukasz", "aethelstan", "strasse"]
    assert name_words("ﾔﾏﾀﾞ=ヤマダ") == name_words("ヤマダ")


def hit(tag: str, key: str, *values: str, fuzzy: bool = False) -> bool:
    (one,) = parse_filters(Query(Level.IMAGE, filters={tag: (key,)}, fuzzy=fuzzy))
    return one.matches({tag: values})


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


@pytest.mark.parametrize(
    ("value", "minutes"),
    [("+0100", 60), ("-0530", -330), ("2024+1400", 840), ("20240101-0100", -60), ("20240101", None), ("0100", None)],
)
def test_zones(value, minutes):
    assert zone_minutes(value) == minutes


@pytest.mark.parametrize(
    ("key", "minutes", "expected"),
    [
        ("20240229233000.250000", 60, "20240301003000.250000"),
        ("20240101000000.000000", -1, "20231231235900.000000"),
        ("20161231235960.000000", 0, "20170101000000.000000"),  # a leap second
        ("20240230120000.000000", 5, None),
    ],
)
def test_moving_a_moment(key, minutes, expected):
    assert moved(key, minutes) == expected


def found(record: dict[str, list[str]], filters: dict[str, str], **asked) -> bool:
    query = Query(Level.IMAGE, filters={tag: tuple(value.split("\\")) for tag, value in filters.items()}, **asked)
    return matches_all(parse_filters(query), record)


DAY, TIME, ZONE = "00080020", "00080030", "00080201"
NIGHT = {DAY: ["20240110"], TIME: ["2330"], ZONE: ["+0100"]}


@pytest.mark.parametrize(
    ("filters", "combined", "expected"),
    [
        ({DAY: "20240109-20240111", TIME: "2200-0600"}, True, True),  # from the 9th at 22 to the 11th at 6
        ({DAY: "20240109-20240110", TIME: "2200-2300"}, True, False),
        ({DAY: "20240109-20240111", TIME: "1000-1100"}, False, False),  # between ten and eleven on each day
        ({DAY: "20240110-", TIME: "2345-"}, True, False),
        ({DAY: "20240110-", TIME: "-2345"}, True, True),  # no day that the time could belong to
        ({DAY: "20240110", TIME: "2300-2345"}, True, True),
        # 23:30 at +0100 is 7:30 of the next day at +0900
        ({DAY: "20240110", ZONE: "+0900"}, False, False),
        ({DAY: "20240111", ZONE: "+0900"}, False, True),
        ({DAY: "20240111", TIME: "0700-0800", ZONE: "+0900"}, True, True),
        ({DAY: "20240110", TIME: "2200-2245", ZONE: "+0000"}, True, True),
        ({DAY: "20240110", TIME: "2330", ZONE: "+0000"}, True, False),
    ],
)
def test_dates_and_times_as_moments(filters, combined, expected):
    assert found(NIGHT, filters, combined=combined) is expected


def test_a_record_without_time_or_zone_is_compared_as_it_is():
    assert found({DAY: ["20240110"], ZONE: ["+0100"]}, {DAY: "20240110", ZONE: "+0900"})
    assert found({DAY: ["20240110"], TIME: ["2330"]}, {DAY: "20240110", TIME: "2330", ZONE: "+0900"}, combined=True)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("202401110730+0900", "202401102330+0100", True),
        ("202401110730+0900", "202401110730", True),
        ("202401102330+0100-202401102345+0100", "202401110731+0900", True),
        ("202401102330+0100-202401102345+0100", "202401102331+0900", False),
    ],
)
def test_date_times_in_zones(key, value, expected):
    assert found({"0008002A": [value]}, {"0008002A": key}) is expected


@pytest.mark.parametrize("zone", ["0100", "+1", "20240101+0100", "east"])
def test_a_zone_that_is_none(zone):
    with pytest.raises(InvalidInput, match="TimezoneOffsetFromUTC"):
        found({}, {ZONE: zone, DAY: "20240101"})


def test_empty_values_match_when_asked_for():
    assert found({}, {"00100020": '""'}, empty_values=True)
    assert not found({"00100020": ["P"]}, {"00100020": '""'}, empty_values=True)
    assert found({"00100020": ['""']}, {"00100020": '""'})
    assert found({"00100020": ["P"]}, {"00100020": '""\\P'}, empty_values=True)


def test_every_value_has_to_be_there_when_asked_for():
    both = {"00080061": ["CT", "PT"]}
    assert found(both, {"00080061": "CT\\PT"}, every_value=True)
    assert not found(both, {"00080061": "CT\\MR"}, every_value=True)
    assert found(both, {"00080061": "CT\\MR"})


STEP, PROCEDURE = "00400275.00400009", "00400275.00401001"


def elements(*tags_and_values: str) -> list[dict[str, str]]:
    pairs = zip(tags_and_values[::2], tags_and_values[1::2], strict=True)
    return [{"group": tag[:4], "element": tag[4:], "vr": "SH", "value": value} for tag, value in pairs]


def test_items_are_recorded_and_one_has_to_match_all():
    first = elements("00400009", "S1", "00401001", " R1 ", "00080005", "not searched")
    items = recorded_items("00400275", [first, [], elements("00400009", "S2")])
    assert [read_item(item) for item in items] == [{"00400009": ["S1"], "00401001": ["R1"]}, {"00400009": ["S2"]}]
    record = {"00400275": items}
    assert found(record, {STEP: "S1", PROCEDURE: "R1"})
    assert found(record, {STEP: "S?"})
    assert not found(record, {STEP: "S2", PROCEDURE: "R1"})
    assert found(record, {STEP: "S2", PROCEDURE: '""'}, empty_values=True)
    assert dicom_json(record, frozenset(record))["00400275"]["Value"][1] == {"00400009": {"vr": "SH", "Value": ["S2"]}}


@pytest.mark.parametrize("items", ["text", 5, [5], [["x"]], [[{}]]])
def test_items_that_are_none(items):
    with pytest.raises(InvalidInput, match="00400275"):
        recorded_items("00400275", items)
