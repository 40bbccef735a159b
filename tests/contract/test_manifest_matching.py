"""Matching beyond single attributes: items of sequences, moments in time zones, what is asked for by negotiation."""

import pytest

from imaging_services.domain.manifest.query import Level, Query
from support.manifest_events import stored
from support.manifests import opened, query_api

STEP, PROCEDURE = "00400275.00400009", "00400275.00401001"
CODE, SCHEME = "0040A043.00080100", "0040A043.00080102"
DAY, TIME, ZONE, MOMENT = "00080020", "00080030", "00080201", "0008002A"
JAPANESE = "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"
KOREAN = "Hong^Gildong=洪^吉洞=홍^길동"

STUDIES = {
    "1.1": {
        DAY: "20240110", TIME: "2330", ZONE: "+0100", "00100010": JAPANESE, "00100020": "P1", "00080060": "CT",
        "00400275": [{"00400009": "S1", "00401001": "R1"}, {"00400009": "S2", "00401001": "R2"}],
        MOMENT: "20240110233000.5",
    },
    "1.2": {
        DAY: "20240111", TIME: "0730", ZONE: "+0900", "00100010": KOREAN, "00100020": "P2", "00080060": "MR",
        "00400275": [{"00400009": "S1", "00401001": "R2"}], MOMENT: "20240111073000.5+0900",
    },
    "1.3": {
        DAY: "20240112", "00100010": "Zhang^XiaoDong=张^小东=", "00080060": "SR", "00080050": "A3",
        "0040A043": [{"00080100": "126000", "00080102": "DCM", "00080104": "Imaging Measurement Report"}],
    },
    "1.4": {DAY: "20240230", TIME: "10", ZONE: "+0100", "00100020": "P1", "00080060": ["PT"]},
}  # fmt: skip


@pytest.fixture(params=["memory", "postgres", "http"])
async def manifest(request):
    kind = "postgres" if request.param == "http" else request.param
    async with opened(kind, request) as manifest:
        for study, attributes in STUDIES.items():
            event = stored(study, f"{study}.1", f"{study}.1.1", attributes=attributes)
            assert await manifest.record([event]) == [None]
        # A second series, so that the fourth study has two modalities
        second = stored("1.4", "1.4.2", "1.4.2.1", attributes={"00080060": "CT", "00200011": "2"})
        assert await manifest.record([second]) == [None]
        if request.param != "http":
            yield manifest
            return
        async with query_api(manifest) as client:
            yield client


SEARCHES = [
    # Items: one of them has to match all keys
    ({STEP: "S1"}, {}, ["1.2", "1.1"]),
    ({STEP: "S1", PROCEDURE: "R1"}, {}, ["1.1"]),
    ({STEP: "S2", PROCEDURE: "R1"}, {}, []),
    ({STEP: "S?", PROCEDURE: "R2"}, {}, ["1.2", "1.1"]),
    ({STEP: "S1\\S2", PROCEDURE: "R2"}, {}, ["1.2", "1.1"]),
    ({STEP: "S2\\S9", PROCEDURE: "R2"}, {}, ["1.1"]),
    ({CODE: "126000", SCHEME: "DCM"}, {}, ["1.3"]),
    ({CODE: "126000", SCHEME: "SRT"}, {}, []),
    ({"0040A043.00080104": "*Measurement*"}, {}, ["1.3"]),
    ({STEP: "*"}, {}, ["1.4", "1.3", "1.2", "1.1"]),
    # A date and its time as one moment
    ({DAY: "20240110-20240111", TIME: "2200-0600"}, {"combined": True}, ["1.1"]),
    ({DAY: "20240110-20240111", TIME: "2200-0600"}, {}, []),
    ({DAY: "20240110-", TIME: "2345-"}, {"combined": True}, ["1.4", "1.3", "1.2"]),
    ({DAY: "20240110\\20240111", TIME: "0700-0800"}, {"combined": True}, ["1.2"]),
    # 23:30 at +0100 and 7:30 of the next day at +0900 are the same moment
    ({DAY: "20240110", ZONE: "+0000"}, {}, ["1.2", "1.1"]),
    ({DAY: "20240111", ZONE: "+0900"}, {}, ["1.2", "1.1"]),
    ({DAY: "20240110", TIME: "2225-2235", ZONE: "+0000"}, {"combined": True}, ["1.2", "1.1"]),
    ({DAY: "20240110", TIME: "2330", ZONE: "+0000"}, {"combined": True}, []),
    ({DAY: "20240112", ZONE: "-0500"}, {}, ["1.3"]),  # has no time
    ({DAY: "20240201-", ZONE: "+0000"}, {}, []),  # the 30th of February has no zone
    ({MOMENT: "202401102230+0000"}, {}, ["1.2", "1.1"]),
    ({MOMENT: "202401102230", ZONE: "+0000"}, {}, ["1.2", "1.1"]),
    ({MOMENT: "20240110223000.6+0000-20240110224500+0000"}, {}, []),
    ({MOMENT: "2024011107"}, {}, ["1.2"]),
    # Values that are not there
    ({"00100020": '""'}, {"empty_values": True}, ["1.3"]),
    ({"00100020": '""\\P2'}, {"empty_values": True}, ["1.3", "1.2"]),
    ({"00100020": '""'}, {}, []),
    ({"00100010": '""'}, {"empty_values": True}, ["1.4"]),
    ({TIME: '""'}, {"empty_values": True}, ["1.3"]),
    ({"00200011": '""', "00080060": "CT"}, {"empty_values": True}, ["1.1"]),
    ({"00080061": '""'}, {"empty_values": True}, []),
    ({"0020000D": '""'}, {"empty_values": True}, []),
    # All values
    ({"00080061": "CT\\PT"}, {"every_value": True}, ["1.4"]),
    ({"00080061": "CT\\PT"}, {}, ["1.4", "1.1"]),
    # Keys of lower levels
    ({"00080060": "CT"}, {}, ["1.4", "1.1"]),
    ({"00080060": "CT", "00200011": "2"}, {}, ["1.4"]),
    ({"00080060": "PT", "00080018": "1.4.2.1"}, {}, []),
    ({"00080060": "C*", "00080018": "1.4.2.1"}, {}, ["1.4"]),
    # Names by any of their groups
    ({"00100010": "山田*"}, {}, ["1.1"]),
    ({"00100010": "やまだ^たろう"}, {}, ["1.1"]),
    ({"00100010": "ﾔﾏﾀﾞ^ﾀﾛｳ"}, {}, ["1.1"]),
    ({"00100010": "ヤマダ"}, {"fuzzy": True}, ["1.1"]),
    ({"00100010": "hong*=洪*"}, {}, ["1.2"]),
    ({"00100010": "길동"}, {"fuzzy": True}, ["1.2"]),
    ({"00100010": "xiaodong 张"}, {"fuzzy": True}, ["1.3"]),
]


async def test_what_is_found(manifest):
    for filters, asked, expected in SEARCHES:
        keys = {tag: tuple(value.split("\\")) for tag, value in filters.items()}
        for provider in (None, "north"):
            found = await manifest.search(Query(Level.STUDY, provider=provider, filters=keys, **asked))
            assert [one["0020000D"]["Value"][0] for one in found] == expected, (filters, asked)
        assert await manifest.search(Query(Level.STUDY, provider="south", filters=keys, **asked)) == []


async def test_lower_keys_hold_for_patients_and_series_too(manifest):
    patients = await manifest.search(Query(Level.PATIENT, filters={"00080060": ("CT",)}))
    assert [one["00100020"]["Value"] for one in patients] == [["P1"]]
    (series,) = await manifest.search(Query(Level.SERIES, filters={"00080018": ("1.4.2.1",)}))
    assert series["0020000E"]["Value"] == ["1.4.2"]


async def test_sequences_are_returned_with_their_items(manifest):
    query = Query(Level.SERIES, filters={"0020000D": ("1.1",)})
    (series,) = await manifest.search(query)
    assert series["00400275"] == {
        "vr": "SQ",
        "Value": [
            {"00400009": {"vr": "SH", "Value": ["S1"]}, "00401001": {"vr": "SH", "Value": ["R1"]}},
            {"00400009": {"vr": "SH", "Value": ["S2"]}, "00401001": {"vr": "SH", "Value": ["R2"]}},
        ],
    }
    (report,) = await manifest.search(Query(Level.IMAGE, filters={CODE: ("126000",)}))
    assert report["0040A043"]["Value"][0]["00080104"]["Value"] == ["Imaging Measurement Report"]


async def test_names_keep_their_groups(manifest):
    (study,) = await manifest.search(Query(Level.STUDY, filters={"0020000D": ("1.2",)}))
    assert study["00100010"]["Value"] == [
        {"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"}
    ]


async def test_going_on_behind_a_result_is_untouched_by_what_arrives(manifest):
    (newest,) = await manifest.search(Query(Level.STUDY, limit=1))
    late = stored("1.9", "1.9.1", "1.9.1.1", attributes={"00080060": "CT"})
    if hasattr(manifest, "record"):
        assert await manifest.record([late]) == [None]
    rest = await manifest.search(Query(Level.STUDY, after=tuple(newest["0020000D"]["Value"])))
    assert [one["0020000D"]["Value"][0] for one in rest] == ["1.3", "1.2", "1.1"]
