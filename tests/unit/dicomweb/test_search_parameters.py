"""QIDO-RS parameters as a manifest query."""

import pytest

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
    search = parse("includefield=StudyDescription,00101010&includefield=PatientSize")
    assert search.query.include == {"00081030", "00101010", "00101020"}
    assert not search.query.include_all
    assert parse("includefield=all").query.include_all


def test_what_is_not_recorded_is_left_out_with_a_warning() -> None:
    search = parse("WindowWidth=3&includefield=PixelSpacing")
    assert search.query.filters == {}
    assert search.query.include == frozenset()
    assert any("WindowWidth" in text for text in search.warnings)
    assert any("PixelSpacing" in text for text in search.warnings)


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
        ("includefield=Nonsense", "Nonsense"),
        ("RequestAttributesSequence.RequestedProcedureID=1", "sequence"),
    ],
)
def test_what_cannot_be_used_is_refused_and_named(text: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        parse(text)
