"""Items of sequences in the events: whatever the encoding, and whatever the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from imaging_services.domain.dicom.charset import charset_of
from imaging_services.domain.dicom.elements import MAX_VALUE_LENGTH, scan
from imaging_services.domain.dicom.items import items_json
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from imaging_services.domain.dicom.values import Decoding
from imaging_services.domain.events.payloads import Element
from imaging_services.domain.ingest.announcement import elements_json
from support.instances import element, encoded

ENCODINGS = {
    "1.2.840.10008.1.2.1": EXPLICIT_LITTLE,
    "1.2.840.10008.1.2": IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.2": EXPLICIT_BIG,
}
LATIN = Decoding(charset_of(b"ISO_IR 100"), signed=False, little_endian=True)


def item(**values: str) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def header(*items: Dataset, undefined: bool = False) -> Dataset:
    dataset = item(SpecificCharacterSet="ISO_IR 100", SOPInstanceUID="1.2", StudyInstanceUID="1.3", SeriesNumber="1")
    dataset.RequestAttributesSequence = list(items)
    dataset["RequestAttributesSequence"].is_undefined_length = undefined
    for one in items:
        one.is_undefined_length_sequence_item = undefined
    return dataset


def announced(dataset: Dataset, syntax: str) -> list[list[tuple[str, str | None]]]:
    """Tag and value of each element of each item, as the event has them."""
    entries = elements_json(scan(encoded(dataset, syntax), ENCODINGS[syntax], ended=True))
    sequence = Element.model_validate(entries[-1])
    return [[(f"{one.tag:08X}", one.value) for one in each] for each in sequence.items or []]


@pytest.mark.parametrize("syntax", list(ENCODINGS))
@pytest.mark.parametrize("undefined", [False, True])
def test_items_are_announced_in_any_encoding(syntax: str, undefined: bool) -> None:
    first = item(ScheduledProcedureStepID="S1", RequestedProcedureDescription="Schädel")
    first.RequestedProcedureCodeSequence = [item(CodeValue="X")]  # sequences within are left out
    second = item(SpecificCharacterSet="ISO_IR 192", RequestedProcedureDescription="Schädel 頭")
    assert announced(header(first, Dataset(), second, undefined=undefined), syntax) == [
        [("00321060", "Schädel"), ("00400009", "S1")],
        [],
        [("00080005", "ISO_IR 192"), ("00321060", "Schädel 頭")],
    ]


def test_a_sequence_that_came_as_unknown_is_read() -> None:
    content = b"\x40\x00\x09\x00\x02\x00\x00\x00S1"  # implicit, as it is within UN
    raw = b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content
    head = element(0x00080018, b"UI", b"1.2\0") + element(0x00400275, b"UN", raw)
    (entry,) = elements_json(scan(head, EXPLICIT_LITTLE, ended=True))[1:]
    assert (entry["vr"], entry["items"][0][0]["value"]) == ("SQ", "S1")


def test_long_sequences_and_others_stay_in_the_file() -> None:
    many = [item(ScheduledProcedureStepID=f"S{number}") for number in range(MAX_VALUE_LENGTH // 16)]
    assert announced(header(*many), "1.2.840.10008.1.2.1") == []
    other = item(SOPInstanceUID="1.2", StudyInstanceUID="1.3")
    other.ReferencedImageSequence = [item(ReferencedSOPInstanceUID="1.4")]
    entries = elements_json(scan(encoded(other), EXPLICIT_LITTLE, ended=True))
    assert [entry for entry in entries if "items" in entry] == []


@given(st.binary(max_size=80))
def test_any_bytes_are_items_or_none(raw: bytes) -> None:
    assert isinstance(items_json(raw, LATIN), list)
    assert isinstance(items_json(b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + raw, LATIN), list)
