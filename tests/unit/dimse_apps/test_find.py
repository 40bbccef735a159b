"""C-FIND: identifiers to queries, matches to identifiers."""

import io
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.apps.dimse_ingestion import find as find_module
from imaging_services.apps.dimse_ingestion.find import Finder, accept_extended, read_find
from imaging_services.apps.dimse_ingestion.identifiers import Key, decode_identifier, encode_identifier, json_values
from imaging_services.domain.dicom.command_set import CommandField, request
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from imaging_services.domain.errors import DataSetMismatch, InvalidInput
from imaging_services.domain.manifest.query import Level
from support.instances import encoded

PATIENT_STUDY_ONLY = "1.2.840.10008.5.1.4.1.2.3.1"
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
    result = find(STUDY_ROOT, identifier(QueryRetrieveLevel="STUDY", NumberOfStudyRelatedSeries="3"))
    assert result.query.filters == {}
    assert result.partial


def test_a_key_of_a_lower_level_is_matched_though_not_returned():
    result = find(STUDY_ROOT, identifier(QueryRetrieveLevel="STUDY", Modality="CT"))
    assert result.query.filters == {"00080060": ("CT",)}
    assert result.query.include == frozenset()
    assert result.partial


def test_items_become_filters_with_the_way_to_them():
    dataset = identifier(QueryRetrieveLevel="SERIES", StudyInstanceUID="1.2")
    dataset.RequestAttributesSequence = [identifier(ScheduledProcedureStepID="S*", RequestedProcedureID="")]
    dataset.PerformedProtocolCodeSequence = []
    for syntax in ENCODINGS:
        result = find(STUDY_ROOT, dataset, syntax)
        assert result.query.filters == {"0020000D": ("1.2",), "00400275.00400009": ("S*",)}
        assert {"00400275", "00400260"} <= result.query.include
        assert not result.partial


@pytest.mark.parametrize(
    ("proposed", "accepted"),
    [
        (b"\1", b"\1"),
        (b"\1\1\1\1\1\1", b"\1\1\1\0\1\1"),
        (b"\0\0\1\0", b"\0\0\1\0"),
        (b"\1" * 9, b"\1\1\1\0\1\1"),
        (b"", b""),
    ],
)
def test_extended_negotiation_accepts_what_is_supported(proposed, accepted):
    assert accept_extended({STUDY_ROOT: proposed, "1.2.840.10008.5.1.4.31": b"\1"}) == {STUDY_ROOT: accepted}


def test_what_was_negotiated_is_asked_of_the_manifest():
    dataset = identifier(QueryRetrieveLevel="SERIES", Modality="CT", PatientName="Doe")
    keys = decode_identifier(encoded(dataset, EXPLICIT), EXPLICIT_LITTLE)
    query = read_find(STUDY_ROOT, keys, None, b"\1\1\1\0\1\1").query  # relational: no Study Instance UID
    assert (query.combined, query.fuzzy, query.empty_values, query.every_value) == (True, True, True, True)
    query = read_find(STUDY_ROOT, keys, None, b"\1").query
    assert (query.combined, query.fuzzy, query.empty_values, query.every_value) == (False, False, False, False)
    with pytest.raises(DataSetMismatch):
        read_find(STUDY_ROOT, keys, None, b"\0\1\1")


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
        (PATIENT_STUDY_ONLY, {"QueryRetrieveLevel": "SERIES", "PatientID": "P", "StudyInstanceUID": "1.2"}),
        (PATIENT_STUDY_ONLY, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"}),
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
        (PATIENT_STUDY_ONLY, {"QueryRetrieveLevel": "PATIENT", "PatientName": "D*"}, Level.PATIENT),
        (PATIENT_STUDY_ONLY, {"QueryRetrieveLevel": "STUDY", "PatientID": "P"}, Level.STUDY),
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
        start = query.offset
        if query.after is not None:
            uids = [(match["0020000D"]["Value"][0],) for match in self.matches]
            if query.after not in uids:
                raise InvalidInput("gone")
            start = uids.index(query.after) + 1
        return self.matches[start : start + query.limit]


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
    assert pending.command.status == 0xFF01  # StudyComments is not recorded
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
    assert [query.after for query in manifest.queries] == [None, ("1.2.499",), ("1.2.999",)]


async def test_matches_go_on_when_the_last_one_is_deleted():
    manifest = Manifest([study(number) for number in range(600)])
    finder = Finder(manifest, provider=None, ae_title="INGEST")
    command = request(CommandField.C_FIND_RQ, STUDY_ROOT, message_id=9, has_data_set=True)
    asked = encoded(identifier(QueryRetrieveLevel="STUDY", StudyInstanceUID=""), EXPLICIT)
    responses = []
    async for response in finder.find(STUDY_ROOT, EXPLICIT, command, asked):
        responses.append(response)
        if len(responses) == 500:
            manifest.matches[499] = study(10_000)
    assert len(responses) == 601
    assert manifest.queries[-1].offset == 500


async def test_keys_that_are_not_known_make_a_warning():
    pending, _ = await answers(Manifest([study(1)]), identifier(QueryRetrieveLevel="STUDY", StudyInstanceUID=""))
    assert pending.command.status == 0xFF00
    for key in ({"NumberOfStudyRelatedSeries": "3"}, {"StudyComments": ""}, {"RequestingPhysician": "X"}):
        pending, _ = await answers(Manifest([study(1)]), identifier(QueryRetrieveLevel="STUDY", **key))
        assert pending.command.status == 0xFF01, key


async def test_sequences_are_answered_with_what_was_asked_of_their_items():
    item = {"00400009": {"vr": "SH", "Value": ["S1"]}, "00401001": {"vr": "SH", "Value": ["R1"]}}
    match = {"0020000E": {"vr": "UI", "Value": ["1.3"]}, "00400275": {"vr": "SQ", "Value": [item, item]}}
    asked = identifier(QueryRetrieveLevel="SERIES", StudyInstanceUID="1.2")
    asked.RequestAttributesSequence = [identifier(ScheduledProcedureStepID="", ScheduledProcedureStepDescription="")]
    for syntax, encoding in ENCODINGS.items():
        pending, _ = await answers(Manifest([match]), asked, syntax)
        found = read_dataset(io.BytesIO(pending.data), encoding.implicit, encoding.little_endian)
        steps = [(item.ScheduledProcedureStepID, len(item)) for item in found.RequestAttributesSequence]
        assert steps == [("S1", 2)] * 2
        assert not found.RequestAttributesSequence[0].ScheduledProcedureStepDescription
    asked.RequestAttributesSequence = []
    pending, _ = await answers(Manifest([match]), asked)
    found = read_dataset(io.BytesIO(pending.data), False, True)
    assert [item.RequestedProcedureID for item in found.RequestAttributesSequence] == ["R1", "R1"]


JAPANESE, KOREAN = "Yamada^Tarou=山田^太郎=やまだ^たろう", "Hong^Gildong=洪^吉洞=홍^길동"


@pytest.mark.parametrize(
    ("requested", "name", "answered"),
    [
        (None, "Doe^John", None),
        (None, "Müller", "ISO_IR 192"),
        ("ISO_IR 100", "Müller", "ISO_IR 100"),
        ("ISO_IR 100", "Doe^John", None),
        ("ISO_IR 100", JAPANESE, "ISO_IR 192"),
        (["", "ISO 2022 IR 87"], JAPANESE, ["", "ISO 2022 IR 87"]),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], JAPANESE, ["ISO 2022 IR 13", "ISO 2022 IR 87"]),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], KOREAN, ["ISO 2022 IR 6", "ISO 2022 IR 149"]),
        (["", "ISO 2022 IR 87"], "Müller=山田", "ISO_IR 192"),
        ("GB18030", "Wang=王^小东", "GB18030"),
        ("ISO_IR 192", KOREAN, "ISO_IR 192"),
        ("ISO_IR 6", "Müller", "ISO_IR 192"),
        ("NONSENSE", "Müller", "ISO_IR 192"),
        ("ISO_IR 101", "Ół", "ISO_IR 192"),  # these two bytes could be UTF-8
    ],
)
def test_answers_are_in_the_character_set_of_the_request_if_it_holds_them(requested, name, answered):
    terms = () if requested is None else tuple(requested) if isinstance(requested, list) else (requested,)
    for encoding in ENCODINGS.values():
        content = encode_identifier([Key(0x00100010, "PN", (name,))], encoding, terms)
        found = read_dataset(io.BytesIO(content), encoding.implicit, encoding.little_endian)
        assert found.get("SpecificCharacterSet") == answered
        assert found.PatientName == name  # as pydicom reads it
        assert decode_identifier(content, encoding)[-1].values == (name,)


def test_chinese_answers_have_their_escape_sequence_in_each_component():
    content = encode_identifier([Key(0x00100010, "PN", ("Zhang=张^小东",))], EXPLICIT_LITTLE, ("", "ISO 2022 IR 58"))
    assert b"Zhang=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab" in content  # PS3.5 section K.2
    assert decode_identifier(content, EXPLICIT_LITTLE)[-1].values == ("Zhang=张^小东",)


@pytest.mark.parametrize(("uids", "elsewhere"), [(2, False), (3000, True)])
async def test_a_long_identifier_does_not_hold_the_others_up(monkeypatch, uids, elsewhere):
    threads = []

    def noting(*asked):
        threads.append(threading.current_thread())
        return decode_identifier(*asked)

    monkeypatch.setattr(find_module, "decode_identifier", noting)
    asked = identifier(
        QueryRetrieveLevel="STUDY", StudyInstanceUID=[f"1.2.3.{10**20 + number}" for number in range(uids)]
    )
    finder = Finder(MemoryManifest("test"), provider="space", ae_title="ARCHIVE")
    command = request(CommandField.C_FIND_RQ, STUDY_ROOT, has_data_set=True)
    answers = [one async for one in finder.find(STUDY_ROOT, IMPLICIT, command, encoded(asked, IMPLICIT))]
    assert [one.command.status for one in answers] == [0]
    assert [one is not threading.main_thread() for one in threads] == [elsewhere]
