"""C-FIND: identifiers to queries, matches to identifiers."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from imaging_services.apps.dimse_ingestion.find import Finder, read_find
from imaging_services.apps.dimse_ingestion.identifiers import Key, decode_identifier, encode_identifier, json_values
from imaging_services.domain.dicom.command_set import CommandField, request
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from imaging_services.domain.errors import DataSetMismatch, InvalidInput
from imaging_services.domain.manifest.query import Level
from support.instances import encoded

PATIENT_ROOT, STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
ENCODINGS = {EXPLICIT: EXPLICIT_LITTLE, IMPLICIT: IMPLICIT_LITTLE, BIG: EXPLICIT_BIG}


def identifier(**values) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def find(sop_class: str, dataset: Dataset, syntax: str = EXPLICIT):
    return read_find(sop_class, decode_identifier(encoded(dataset, syntax), ENCODINGS[syntax]), "space")


@pytest.mark.parametrize("syntax", list(ENCODINGS))
def test_keys_become_filters_and_includes(syntax):
    dataset = identifier(
        QueryRetrieveLevel="STUDY",
        PatientName="DOE*",
        StudyDate="20200101-20201231",
        StudyInstanceUID=["1.2.3", "1.2.4"],
        ModalitiesInStudy="",
        AccessionNumber=None,
    )
    result = find(STUDY_ROOT, dataset, syntax)
    assert result.query.level is Level.STUDY
    assert result.query.provider == "space"
    assert result.query.filters == {
        "00100010": ("DOE*",),
        "00080020": ("20200101-20201231",),
        "0020000D": ("1.2.3", "1.2.4"),
    }
    assert result.query.include == {"00100010", "00080020", "0020000D", "00080061", "00080050"}
    assert not result.partial


def test_a_key_that_cannot_be_searched_is_universal_and_said_so():
    result = find(STUDY_ROOT, identifier(QueryRetrieveLevel="STUDY", Modality="CT", NumberOfStudyRelatedSeries="3"))
    assert result.query.filters == {}
    assert result.partial


def test_a_long_uid_list_stays_a_filter():
    uids = [f"1.2.3.{number}" for number in range(2000)]
    result = find(STUDY_ROOT, identifier(QueryRetrieveLevel="STUDY", StudyInstanceUID=uids))
    assert result.query.filters["0020000D"] == tuple(uids)


def test_names_are_read_in_their_character_set():
    dataset = identifier(SpecificCharacterSet="ISO_IR 100", QueryRetrieveLevel="STUDY", PatientName="Müller*")
    assert find(STUDY_ROOT, dataset).query.filters == {"00100010": ("Müller*",)}


@pytest.mark.parametrize(
    ("sop_class", "values"),
    [
        (STUDY_ROOT, {"QueryRetrieveLevel": "PATIENT"}),
        (STUDY_ROOT, {"QueryRetrieveLevel": "STUDIES"}),
        (STUDY_ROOT, {"QueryRetrieveLevel": "SERIES", "Modality": "CT"}),
        (STUDY_ROOT, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": ["1.2", "1.3"]}),
        (STUDY_ROOT, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": ""}),
        (STUDY_ROOT, {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": "1.2"}),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "STUDY", "PatientID": "P*"}),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2"}),
    ],
)
def test_missing_unique_keys_and_wrong_levels(sop_class, values):
    with pytest.raises(DataSetMismatch):
        find(sop_class, identifier(**values))


@pytest.mark.parametrize(
    ("sop_class", "values", "level"),
    [
        (PATIENT_ROOT, {"QueryRetrieveLevel": "PATIENT"}, Level.PATIENT),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "STUDY", "PatientID": "P"}, Level.STUDY),
        (STUDY_ROOT, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2"}, Level.SERIES),
        (
            PATIENT_ROOT,
            {
                "QueryRetrieveLevel": "IMAGE",
                "PatientID": "P",
                "StudyInstanceUID": "1.2",
                "SeriesInstanceUID": "1.3",
                "SOPInstanceUID": "1.4",
            },
            Level.IMAGE,
        ),
    ],
)
def test_levels(sop_class, values, level):
    assert find(sop_class, identifier(**values)).query.level is level


def test_no_level_and_no_data_set():
    with pytest.raises(InvalidInput, match="0008,0052"):
        find(STUDY_ROOT, identifier(PatientName="A"))
    with pytest.raises(InvalidInput, match="0008,0052"):
        read_find(STUDY_ROOT, decode_identifier(b"", EXPLICIT_LITTLE), None)


@given(st.binary(max_size=200), st.sampled_from(list(ENCODINGS.values())))
def test_any_bytes_are_an_identifier_or_refused(data, encoding):
    try:
        keys = decode_identifier(data, encoding)
    except InvalidInput:
        return
    assert all(isinstance(key.tag, int) for key in keys)


@given(
    st.lists(st.text(st.characters(exclude_characters="\\", exclude_categories=["C", "Z"]), min_size=1), max_size=4),
    st.sampled_from(list(ENCODINGS.values())),
)
def test_text_survives_encoding(values, encoding):
    keys = [Key(0x00081030, "LO", tuple(values)), Key(0x00280010, "US", ("512",)), Key(0x00081110, "SQ")]
    decoded = {key.tag: key for key in decode_identifier(encode_identifier(keys, encoding), encoding)}
    assert decoded[0x00081030].values == tuple(values)
    assert decoded[0x00280010].values == ("512",)
    assert decoded[0x00081110].values == ()
    assert (0x00080005 in decoded) is not all(value.isascii() for value in values)


@pytest.mark.parametrize(
    ("element", "values"),
    [
        ({"vr": "PN", "Value": [{"Alphabetic": "A^B", "Phonetic": "p"}]}, ("A^B==p",)),
        ({"vr": "IS", "Value": [3, "x"]}, ("3", "x")),
        ({"vr": "DS", "Value": [1, 0.3333333333333333333]}, ("1", "0.333333333")),
        ({"vr": "UI"}, ()),
    ],
)
def test_json_values(element, values):
    assert json_values(element) == values


class Manifest:
    def __init__(self, matches):
        self.matches, self.queries = matches, []

    async def search(self, query):
        self.queries.append(query)
        return self.matches[query.offset : query.offset + query.limit]


def study(number: int):
    return {
        "0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jürgen"}]},
        "00081030": {"vr": "LO", "Value": ["not asked for"]},
    }


async def answers(manifest, dataset, syntax=EXPLICIT):
    finder = Finder(manifest, provider="space", ae_title="INGEST")
    command = request(CommandField.C_FIND_RQ, STUDY_ROOT, message_id=9, has_data_set=True)
    return [one async for one in finder.find(STUDY_ROOT, syntax, command, encoded(dataset, syntax))]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
async def test_response_identifiers_hold_what_was_asked(syntax):
    asked = identifier(QueryRetrieveLevel="STUDY", PatientName="", StudyInstanceUID="", StudyComments="")
    pending, final = await answers(Manifest([study(1)]), asked, syntax)
    assert pending.command.status == 0xFF00
    assert (final.command.status, final.data) == (0x0000, None)
    found = read_dataset(io.BytesIO(pending.data), syntax == IMPLICIT, True)
    assert {element.keyword for element in found} == {
        "SpecificCharacterSet",
        "QueryRetrieveLevel",
        "RetrieveAETitle",
        "PatientName",
        "StudyInstanceUID",
        "StudyComments",
    }
    assert found.PatientName == "Müller^Jürgen"
    assert found.RetrieveAETitle == "INGEST"
    assert found.QueryRetrieveLevel == "STUDY"
    assert not found.StudyComments


async def test_many_matches_come_page_by_page():
    manifest = Manifest([study(number) for number in range(1200)])
    responses = await answers(manifest, identifier(QueryRetrieveLevel="STUDY", StudyInstanceUID=""))
    assert len(responses) == 1201
    assert [query.offset for query in manifest.queries] == [0, 500, 1000]


async def test_keys_that_are_not_matched_make_a_warning():
    pending, _ = await answers(Manifest([study(1)]), identifier(QueryRetrieveLevel="STUDY", Modality="CT"))
    assert pending.command.status == 0xFF01
