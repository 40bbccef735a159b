"""QIDO-RS parameters as a manifest query."""

import pytest

from imaging_services.apps.dicomweb_ingestion.page_ends import PageEnds, page_key
from imaging_services.apps.dicomweb_ingestion.search_parameters import Search, parse_search
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.query import Level

STUDY = "0020000D"


def parse(text: str, level: Level = Level.STUDY, path: dict[str, str] | None = None) -> Search:
    pairs = [(name, value) for name, _, value in (item.partition("=") for item in text.split("&") if item)]
    return parse_search(level, "north", path or {}, pairs, default_limit=100, max_limit=200)


def test_attributes_are_named_by_keyword_or_tag() -> None:
    search = parse("PatientName=DOE*&00100020=123&0020000d=1.2,1.3")
    assert search.query.filters == {"00100010": ("DOE*",), "00100020": ("123",), STUDY: ("1.2", "1.3")}
    assert (search.query.level, search.query.provider) == (Level.STUDY, "north")


def test_repeated_parameters_are_alternatives_and_names_keep_their_commas() -> None:
    search = parse("ModalitiesInStudy=CT&ModalitiesInStudy=MR,US&StudyDescription=Head, neck")
    assert search.query.filters["00080061"] == ("CT", "MR", "US")
    assert search.query.filters["00081030"] == ("Head, neck",)


def test_an_empty_value_matches_everything() -> None:
    assert parse("PatientID=").query.filters == {"00100020": ()}


def test_one_result_more_than_the_page_is_asked_for() -> None:
    assert (parse("").limit, parse("").query.limit) == (100, 101)
    search = parse("limit=7&offset=14")
    assert (search.limit, search.query.limit, search.query.offset) == (7, 8, 14)
    assert parse("limit=100000").limit == 200


def test_fields_are_included_by_name_by_list_or_all() -> None:
    search = parse("includefield=StudyDescription, 00101010&includefield=PatientSize")
    assert search.query.include == {"00081030", "00101010", "00101020"}
    assert not search.query.include_all
    assert parse("includefield=all").query.include_all


def test_what_is_not_recorded_is_left_out_with_a_warning() -> None:
    search = parse("EchoTime=3&00400275.00321064.00080100=x&includefield=PixelSpacing")
    assert search.query.filters == {}
    assert search.query.include == frozenset()
    assert any("EchoTime" in text for text in search.warnings)
    assert any("RequestAttributesSequence.RequestedProcedureCodeSequence.CodeValue" in text for text in search.warnings)
    assert any("PixelSpacing" in text for text in search.warnings)


@pytest.mark.parametrize(
    "name",
    [
        "RequestAttributesSequence.ScheduledProcedureStepID",
        "00400275.00400009",
        "00400275.ScheduledProcedureStepID",
    ],
)
def test_attributes_of_items_are_named_by_their_way(name: str) -> None:
    assert parse(f"{name}=S1", Level.SERIES).query.filters == {"00400275.00400009": ("S1",)}
    assert parse(f"includefield={name}", Level.SERIES, {STUDY: "1.2"}).query.include == {"00400275"}


def test_attributes_of_lower_levels_are_matched_but_not_returned() -> None:
    search = parse("Modality=CT&includefield=Modality")
    assert search.query.filters == {"00080060": ("CT",)}
    assert "00080060" not in search.query.include
    assert ["Modality" in text for text in search.warnings] == [True]


def test_matching_beyond_the_usual_is_switched() -> None:
    plain = parse("").query
    assert (plain.combined, plain.empty_values, plain.every_value) == (True, False, False)
    query = parse("emptyvaluematching=true&multiplevaluematching=true&PatientID=%22%22").query
    assert (query.empty_values, query.every_value) == (True, True)


def test_open_paths_tell_of_the_levels_above() -> None:
    assert {"00100010", "00080020", "00201208"} <= parse("", Level.SERIES).query.include
    everywhere = parse("", Level.IMAGE).query.include
    assert {"00100010", "0008103E"} <= everywhere
    in_a_study = parse("", Level.IMAGE, {STUDY: "1.2"}).query.include
    assert "0008103E" in in_a_study
    assert "00100010" not in in_a_study
    assert parse("", Level.IMAGE, {STUDY: "1.2", "0020000E": "1.3"}).query.include == frozenset()


def test_the_path_is_a_filter() -> None:
    assert parse("", Level.SERIES, {STUDY: "1.2"}).query.filters == {STUDY: ("1.2",)}
    assert parse("StudyInstanceUID=1.2", Level.SERIES, {STUDY: "1.2"}).query.filters == {STUDY: ("1.2",)}
    with pytest.raises(InvalidInput, match="differs from the path"):
        parse("StudyInstanceUID=1.3", Level.SERIES, {STUDY: "1.2"})


def test_fuzzy_matching_is_switched() -> None:
    assert parse("fuzzymatching=true").query.fuzzy
    assert not parse("fuzzymatching=false").query.fuzzy


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("PatientNam=DOE", "PatientNam"),
        ("0010=DOE", "0010"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=2", "limit"),
        ("offset=1.5", "offset"),
        ("offset=99999999999999999999", "offset"),
        ("fuzzymatching=maybe", "fuzzymatching"),
        ("emptyvaluematching=1", "emptyvaluematching"),
        ("multiplevaluematching=", "multiplevaluematching"),
        ("includefield=Nonsense", "Nonsense"),
        ("RequestAttributesSequence.Nonsense=1", "Nonsense"),
        ("RequestAttributesSequence.=1", "''"),
    ],
)
def test_what_cannot_be_used_is_refused_and_named(text: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        parse(text)


def test_pages_go_on_where_the_last_one_ended() -> None:
    now = 1000.0
    ends = PageEnds(lambda: now)
    key = page_key("/studies", [("PatientID", "P"), ("Modality", "CT"), ("offset", "10"), ("limit", "10")])
    assert key == page_key("/studies", [("limit", "10"), ("Modality", "CT"), ("PatientID", "P")])
    assert key != page_key("/studies", [("PatientID", "P")])
    ends.remember(key, 20, ("1.2",))
    assert ends.behind(key, 20) == ("1.2",)
    assert ends.behind(key, 10) is None
    for number in range(5000):
        ends.remember(b"other", number, ("1.3",))
    assert ends.behind(key, 20) is None
    now += 3600
    assert ends.behind(b"other", 4999) is None
