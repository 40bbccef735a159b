"""Searches against a model in plain Python that follows PS3.4 section C.2.2.2 in the most direct way."""

import fnmatch
import random
import unicodedata
from itertools import groupby, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.manifest.attributes import ATTRIBUTES, SEARCHABLE_TAGS
from imaging_services.domain.manifest.query import Level, Query
from support.manifest_events import CT, MR, stored
from support.manifests import opened, query_api

NAMES = [
    "Müller^Jürgen",
    "MULLER^Jurgen^^Dr", "Doe^John", "doe^jane^^",
    "Yamada^Tarou=山田^太郎=やまだ^たろう", "O_Neil^A%b", "Doe", "",
]  # fmt: skip
IDS = ["P1", "P2", "p1", "P_1", "P*1", ""]
DATES = ["20240101", "20240131", "20240201", "2024.03.01", "", "unknown"]
TIMES = ["", "10", "1030", "103015", "103015.5", "235959.999999", "10:30:15"]
MODALITIES = ["CT", "MR", "SR", ""]
NUMBERS = ["1", "02", "10", ""]
BODY_PARTS = ["CHEST", "CHEST_LOW", "HEAD", ""]
PHYSICIANS = ["House^Gregory", "HOUSE^G.", "Wilson^James", ""]


def archive() -> list[dict[str, str]]:
    """The same random instances in each run, one dictionary of attributes each."""
    choose = random.Random(20241121)
    rows = []
    for study in range(1, 25):
        of_study = {
            "0020000D": f"1.{study}",
            "00100010": choose.choice(NAMES),
            "00100020": choose.choice(IDS),
            "00080020": choose.choice(DATES),
            "00080030": choose.choice(TIMES),
            "00080090": choose.choice(PHYSICIANS),
        }
        for series in range(1, choose.randint(2, 4)):
            of_series = of_study | {
                "0020000E": f"1.{study}.{series}",
                "00080060": choose.choice(MODALITIES),
                "00200011": choose.choice(NUMBERS),
                "00180015": choose.choice(BODY_PARTS),
                "provider": choose.choice(["north", "south"]),
            }
            for instance in range(1, choose.randint(2, 4)):
                own = {"00080018": f"1.{study}.{series}.{instance}", "00080016": choose.choice([CT, MR])}
                rows.append(of_series | own | {"00200013": choose.choice(NUMBERS)})
    return rows


ARCHIVE = archive()


async def fill(manifest) -> None:
    """Record the archive, a batch for each study: within one batch, studies have no order."""
    for _, rows in groupby(ARCHIVE, key=lambda row: row["0020000D"]):
        events = [event_of(row) for row in rows]
        assert await manifest.record(events) == [None] * len(events)


def event_of(row: dict[str, str]) -> CloudEvent:
    """A row as an event."""
    apart = ("0020000D", "0020000E", "00080018", "00080016", "provider")
    attributes = {tag: value for tag, value in row.items() if tag not in apart}
    study, series, instance, sop_class, provider = (row[tag] for tag in apart)
    return stored(study, series, instance, provider=provider, sop_class=sop_class, attributes=attributes)


@pytest.fixture(params=["memory", "postgres", "http"])
async def manifest(request):
    kind = "postgres" if request.param == "http" else request.param
    async with opened(kind, request) as manifest:
        await fill(manifest)
        if request.param != "http":
            yield manifest
            return
        async with query_api(manifest) as client:
            yield client


def folded(text: str) -> str:
    """Without accents and case."""
    return "".join(char for char in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(char))


def like(pattern: str, value: str) -> bool:
    """Wild card matching; brackets mean nothing."""
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def name_matches(key: str, value: str, fuzzy: bool) -> bool:
    """One of the component groups, without case and trailing delimiters; fuzzy: each word begins some word."""
    if fuzzy and "?" not in key and not any("*" in word.rstrip("*") for word in key.replace("^", " ").split()):
        known = folded(value).replace("^", " ").replace("=", " ").replace(".", " ").replace("_", " ").split()
        asked = folded(key).replace("*", " ").replace("^", " ").replace(".", " ").split()
        return all(any(word.startswith(one) for word in known) for one in asked)
    groups = [group.casefold().rstrip("^") for group in value.split("=")]
    return any(group and like(key.casefold().rstrip("^"), group) for group in groups)


def in_range(key: str, value: str, low_pad: str, high_pad: str) -> bool:
    """Digits compared after padding both bounds."""
    low, dash, high = key.partition("-")
    high = high if dash else low
    moment = value + low_pad[len(value) :]
    return (not low or low + low_pad[len(low) :] <= moment) and (not high or moment <= high + high_pad[len(high) :])


def matches(tag: str, key: str, row: dict[str, str], fuzzy: bool) -> bool:
    """Single-value, wild card and range matching of one attribute."""
    value = row.get(tag, "")
    if not value:
        return False
    if tag in ("00100010", "00080090"):
        return name_matches(key, value, fuzzy)
    if tag == "00080020":
        date = value.replace(".", "")
        return date.isdigit() and in_range(key, date, "", "")
    if tag == "00080030":
        return in_range(key, value.replace(":", ""), "000000.000000", "235959.999999")
    if tag in ("00200011", "00200013"):
        return int(value) == int(key)
    return like(key, value)


def expected(query: Query) -> set[tuple[str, ...]]:
    """The unique keys of what a search has to find."""
    found = set()
    for row in ARCHIVE:
        if query.provider not in (None, row["provider"]):
            continue
        scope = [
            one for one in ARCHIVE if one["0020000D"] == row["0020000D"] and query.provider in (None, one["provider"])
        ]
        hit = True
        for tag, keys in query.filters.items():
            if not keys or "*" in keys:
                continue
            if tag == "00080061":
                hit &= any(matches("00080060", key, one, False) for one in scope for key in keys)
            else:
                hit &= any(matches(tag, key, row, query.fuzzy) for key in keys)
        if hit:
            found.add(tuple(row[tag] for tag in ("0020000D", "0020000E", "00080018")[: DEPTH[query.level]]))
    return found


DEPTH = {Level.STUDY: 1, Level.SERIES: 2, Level.IMAGE: 3}
NAME_KEYS = [
    "Doe^John",
    "DOE^JOHN",
    "doe^jane",
    "Doe*",
    "*oe^J?hn",
    "山田^太郎",
    "Mül*",
    "muller",
    "o_n*",
    "J* Doe",
    "jo d",
]
FILTERS = {
    "00100010": st.sampled_from(NAME_KEYS),
    "00100020": st.sampled_from(["P1", "P*", "p?", "P_1", "*1", "P2", "Q"]),
    "00080020": st.sampled_from(["20240101", "20240101-20240131", "-20240131", "20240131-", "20240301", "20250101-"]),
    "00080030": st.sampled_from(["10", "1030", "1000-1030", "-103015", "103016-", "103015.5"]),
    "00080090": st.sampled_from(["house^gregory", "House*", "*James", "greg", "Nobody"]),
    "0020000D": st.sampled_from([f"1.{number}" for number in range(1, 27)]),
    "00080061": st.sampled_from(["CT", "MR", "SR", "US", "?T"]),
}  # fmt: skip
OF_SERIES = {
    "00080060": st.sampled_from(["CT", "MR", "?R", "C*", "US"]),
    "00200011": st.sampled_from(["1", "2", "002", "10", "11"]),
    "00180015": st.sampled_from(["CHEST", "CHEST*", "CHEST_*", "HEA?", "KNEE"]),
    "0020000E": st.sampled_from([row["0020000E"] for row in ARCHIVE[::5]]),
}
OF_IMAGE = {
    "00080016": st.sampled_from([CT, MR, "1.2"]),
    "00200013": st.sampled_from(["1", "2", "10"]),
    "00080018": st.sampled_from([row["00080018"] for row in ARCHIVE[::7]]),
}


@st.composite
def queries(draw) -> Query:
    level = draw(st.sampled_from(list(DEPTH)))
    offered = FILTERS | OF_SERIES | OF_IMAGE  # those of lower levels too: one series or instance has to meet them
    tags = draw(st.lists(st.sampled_from(sorted(offered)), max_size=3, unique=True))
    filters = {tag: tuple(draw(st.lists(offered[tag], min_size=0, max_size=2))) for tag in tags}
    provider = draw(st.sampled_from([None, "north", "south", "west"]))
    return Query(level, provider, filters, fuzzy=draw(st.booleans()))


def keys(level: Level, found: list[dict]) -> list[tuple[str, ...]]:
    tags = ("0020000D", "0020000E", "00080018")[: DEPTH[level]]
    return [tuple(one[tag]["Value"][0] for tag in tags) for one in found]


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(query=queries())
async def test_a_search_finds_what_the_model_finds(manifest, query):
    found = keys(query.level, await manifest.search(query))
    assert len(found) == len(set(found))
    assert set(found) == expected(query)


async def test_pages_put_together_are_the_whole(manifest):
    for level in DEPTH:
        whole = keys(level, await manifest.search(Query(level, provider="north")))
        pages, offset = [], 0
        while page := keys(level, await manifest.search(Query(level, provider="north", limit=7, offset=offset))):
            pages += page
            offset += 7
        assert pages == whole
        assert await manifest.search(Query(level, limit=0)) == []


async def test_pages_behind_a_result_are_the_whole(manifest):
    filters = {"00080061": ("CT", "MR")}
    for level in DEPTH:
        whole = keys(level, await manifest.search(Query(level, filters=filters)))
        pages: list[tuple[str, ...]] = []
        after = None
        while page := keys(level, await manifest.search(Query(level, filters=filters, limit=5, after=after))):
            pages += page
            after = page[-1]
        assert pages == whole


async def test_order_is_newest_study_first_then_by_number(manifest):
    found = await manifest.search(Query(Level.IMAGE))
    studies = [int(one["0020000D"]["Value"][0].split(".")[1]) for one in found]
    assert studies == sorted(studies, reverse=True)
    of_study = [one for one in found if one["0020000D"]["Value"][0] == found[0]["0020000D"]["Value"][0]]
    series = list(dict.fromkeys(one["0020000E"]["Value"][0] for one in of_study))
    for uid in series:
        numbers = [
            one.get("00200013", {"Value": [1000]})["Value"][0] for one in of_study if one["0020000E"]["Value"] == [uid]
        ]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("provider", [None, "north", "south"])
async def test_counts_of_a_study_are_those_of_the_provider(manifest, provider):
    for found in await manifest.search(Query(Level.STUDY, provider=provider)):
        mine = [
            row
            for row in ARCHIVE
            if row["0020000D"] == found["0020000D"]["Value"][0] and provider in (None, row["provider"])
        ]
        assert found["00201206"] == {"vr": "IS", "Value": [len({row["0020000E"] for row in mine})]}
        assert found["00201208"] == {"vr": "IS", "Value": [len(mine)]}
        assert found["00080062"]["Value"] == sorted({row["00080016"] for row in mine})
        modalities = sorted({row["00080060"] for row in mine} - {""})
        assert found.get("00080061", {"Value": []})["Value"] == modalities


async def test_patients_are_listed_once(manifest):
    wanted = frozenset({"00201200", "00201202", "00201204"})
    found = await manifest.search(Query(Level.PATIENT, include=wanted))
    ids = [one["00100020"]["Value"][0] for one in found if "00100020" in one]
    assert ids == sorted({row["00100020"] for row in ARCHIVE} - {""})
    nameless = [one for one in found if "00100020" not in one]
    assert len(nameless) == len({row["00100010"].casefold().rstrip("^") for row in ARCHIVE if not row["00100020"]})
    for one in found:
        if "00100020" in one:
            rows = [row for row in ARCHIVE if row["00100020"] == one["00100020"]["Value"][0]]
            assert one["00201200"]["Value"] == [len({row["0020000D"] for row in rows})]
            assert one["00201202"]["Value"] == [len({row["0020000E"] for row in rows})]
            assert one["00201204"]["Value"] == [len(rows)]
    (patient,) = await manifest.search(Query(Level.PATIENT, filters={"00100020": ("P1",)}))
    assert patient["00100020"]["Value"] == ["P1"]


async def test_results_are_typed_and_hold_what_was_asked(manifest):
    query = Query(Level.IMAGE, filters={"0020000D": ("1.1",)}, include=frozenset({"00100010", "00080061", "00020010"}))
    for found in await manifest.search(query):
        assert found["00080016"]["vr"] == "UI"
        assert found["00080061"]["vr"] == "CS"
        assert found["00020010"]["Value"] == ["1.2.840.10008.1.2.1"]
        assert all(isinstance(number, int) for number in found.get("00200013", {"Value": []})["Value"])
        assert "00080020" not in found
        assert all("Value" in element and None not in element["Value"] for element in found.values())
    everything = (await manifest.search(Query(Level.IMAGE, include_all=True, limit=1)))[0]
    assert {"00080090", "00201206", "00201209", "00083002"} <= everything.keys() | {"00080090"}


BAD = [
    (Level.STUDY, "00080020", "2024"),
    (Level.STUDY, "00080020", "20240230"),
    (Level.STUDY, "00080020", "-"),
    (Level.STUDY, "00080020", "tomorrow"),
    (Level.STUDY, "00080030", "99"),
    (Level.STUDY, "00080030", "10-11-12"),
    (Level.STUDY, "0020000D", "1.2.*"),
    (Level.STUDY, "0020000D", "one"),
    (Level.SERIES, "00200011", "two"),
    (Level.STUDY, "00080201", "east"),
    (Level.STUDY, "00400275", "1"),
    (Level.STUDY, "00201206", "1"),
    (Level.STUDY, "7FE00010", "1"),
    (Level.IMAGE, "0008002A", "2024-13"),
]


async def test_bad_matching_values_are_named(manifest):
    for level, tag, value in BAD:
        name = ATTRIBUTES[tag].keyword if tag in SEARCHABLE_TAGS[level] else tag
        with pytest.raises(InvalidInput, match=name):
            await manifest.search(Query(level, filters={tag: (value,)}))


async def test_every_searchable_attribute_can_be_searched(manifest):
    for tag in sorted(SEARCHABLE_TAGS[Level.IMAGE] - {"00080201"}):  # the time zone is no key of its own
        value = {"DA": "20240101-20240102", "TM": "10-11", "DT": "2024-2025"}.get(ATTRIBUTES[tag].vr, "1")
        for level, extended in ((Level.IMAGE, False), (Level.STUDY, True)):
            values = (value, '""') if extended else (value,)
            zone = {"00080201": ("+0100",)} if extended else {}
            query = Query(level, filters=zone | {tag: values}, fuzzy=extended, empty_values=extended)
            assert isinstance(await manifest.search(query), list), tag


async def test_a_page_that_is_none(manifest):
    for limit, offset in ((-1, 0), (None, -1)):
        with pytest.raises(InvalidInput):
            await manifest.search(Query(Level.STUDY, limit=limit, offset=offset))
    for level, after in ((Level.PATIENT, ("P1",)), (Level.SERIES, ("1.1",)), (Level.STUDY, ("1.999",))):
        with pytest.raises(InvalidInput):
            await manifest.search(Query(level, after=after))


HOSTILE = [
    "'; DROP TABLE dicom_study; --",
    "\x00",
    "%",
    "_",
    "\\",
    "a'b:*&|!()<->",
    "{}",
    "$1",
    "%(p0)s",
    "x" * 100_000,
]


async def test_hostile_values_find_nothing(manifest):
    for tag, value, fuzzy in product(
        ("00100010", "00100020", "00080061", "00080090", "00180015"), HOSTILE, (False, True)
    ):
        found = await manifest.search(Query(Level.IMAGE, filters={tag: (value,)}, fuzzy=fuzzy))
        if value.strip("\x00"):
            # Fuzzy matching of names takes words, and these values hold letters that begin one.
            assert found == [] or (fuzzy and ATTRIBUTES[tag].vr == "PN"), (tag, value)
    assert len(await manifest.search(Query(Level.IMAGE))) == len(ARCHIVE)
