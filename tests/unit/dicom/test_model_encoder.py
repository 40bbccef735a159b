"""Data sets made from the DICOM JSON and the Native DICOM Model."""

import base64
import io
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging_services.domain.dicom.bulk_media import codestream_offset, pixel_transfer_syntax
from imaging_services.domain.dicom.media_types import parse_media_type
from imaging_services.domain.dicom.model_encoder import BulkValue, Span, encode_model
from imaging_services.domain.dicom.native_model_reader import read_native_model
from imaging_services.domain.errors import InvalidInput, UnsupportedTransferSyntax


def no_bulk(uri: str) -> BulkValue:
    raise InvalidInput("no part")


def read(model: dict[str, Any]) -> pydicom.Dataset:
    pieces = encode_model(model, no_bulk)
    content = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    return pydicom.dcmread(io.BytesIO(content), force=True)


@pytest.mark.parametrize(
    ("tag", "vr", "values", "value"),
    [
        ("00280010", "US", [512], 512),
        ("00280010", None, ["512"], 512),
        ("00280106", "US or SS", [-5], -5),
        ("00189919", "FD", [1.5, None], [1.5, 0.0]),
        ("00200013", "IS", [7.0], 7),
        ("00281050", "DS", [40.25, "1e3"], [40.25, 1000]),
        ("00089215", "SQ", [], []),
        ("00100010", "PN", [{"Alphabetic": "A^B", "Phonetic": "C"}], "A^B==C"),
        ("00100010", "PN", ["A^B"], "A^B"),
        ("00104000", "LT", ["a\\b"], "a\\b"),
        ("00081199", "AT", ["00100010"], 0x00100010),
        ("00080008", "CS", ["ORIGINAL", None, "AXIAL"], ["ORIGINAL", "", "AXIAL"]),
        ("00091001", "UV", [2**64 - 1], 2**64 - 1),
    ],
)
def test_values_of_every_kind(tag: str, vr: str | None, values: list[Any], value: Any) -> None:
    attribute = {"Value": values} | ({"vr": vr} if vr else {})
    assert read({tag: attribute})[int(tag, 16)].value == value


def test_items_hold_items_and_text_is_in_utf_8() -> None:
    inner = {"00080104": {"vr": "LO", "Value": ["größer"]}, "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}}
    dataset = read({"00400555": {"vr": "SQ", "Value": [{"0040A168": {"vr": "SQ", "Value": [inner]}}, {}, None]}})
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    first, second, third = dataset[0x00400555].value
    assert first.ConceptCodeSequence[0].CodeMeaning == "größer"
    assert not second
    assert not third


def test_private_attributes_of_the_native_model_get_blocks() -> None:
    attributes = [("00090002", "ACME", "a"), ("00090003", "ACME", "b"), ("00090002", "OTHER", "c")]
    xml = "".join(
        f'<DicomAttribute tag="{tag}" vr="LO" privateCreator="{creator}"><Value>{value}</Value></DicomAttribute>'
        for tag, creator, value in attributes
    )
    dataset = read(read_native_model(f"<NativeDicomModel>{xml}</NativeDicomModel>".encode()))
    assert dataset.private_block(0x0009, "ACME")[0x02].value == "a"
    assert dataset.private_block(0x0009, "ACME")[0x03].value == "b"
    assert dataset.private_block(0x0009, "OTHER")[0x02].value == "c"


def test_a_value_too_long_for_its_vr_is_un() -> None:
    dataset = read({"00091001": {"vr": "LO", "Value": ["x" * 70_001]}})
    assert dataset[0x00091001].VR == "UN"
    assert len(dataset[0x00091001].value) == 70_002


def test_inline_binary_is_padded() -> None:
    assert (
        read({"00091001": {"vr": "OB", "InlineBinary": base64.b64encode(b"abc").decode()}})[0x00091001].value
        == b"abc\x00"
    )


def test_bulk_values_stay_where_they_are() -> None:
    spans = [Span(100, 3), Span(200, 4)]
    native = encode_model({"7FE00010": {"vr": "OB", "BulkDataURI": "x"}}, lambda _: BulkValue(spans))
    assert native == [b"\xe0\x7f\x10\x00OB\x00\x00\x08\x00\x00\x00", spans[0], b"", spans[1], b"\x00"]
    fragments = encode_model(
        {"7FE00010": {"vr": "OB", "BulkDataURI": "x"}}, lambda _: BulkValue(spans, encapsulated=True)
    )
    assert [piece for piece in fragments if isinstance(piece, Span)] == spans
    assert fragments[2] == b"\x00\xfe\xff\x00\xe0\x04\x00\x00\x00"


def test_sequences_without_end_are_refused() -> None:
    model: dict[str, Any] = {}
    for _ in range(200):
        model = {"00400555": {"vr": "SQ", "Value": [model]}}
    with pytest.raises(InvalidInput, match=r"nested|Recursion"):
        encode_model(model, no_bulk)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["Value", "Alphabetic"]), inner),
    max_leaves=4,
)
KNOWN_VRS = st.sampled_from(["AT", "CS", "DA", "DS", "FD", "IS", "LT", "OB", "PN", "SQ", "SV", "UI", "UL", "UN", "US"])
ATTRIBUTES = JSON | st.fixed_dictionaries(
    {"vr": KNOWN_VRS | JSON}, optional={"Value": JSON, "InlineBinary": JSON, "BulkDataURI": JSON}
)
MODEL_TAGS = st.sampled_from(["00100010", "00280010", "7FE00010", "0008114A", "00081199", "00020010", "bad"])


@settings(max_examples=60)
@given(st.dictionaries(MODEL_TAGS, ATTRIBUTES, max_size=3))
def test_no_model_breaks_the_encoder_in_an_unforeseen_way(model: dict[str, Any]) -> None:
    try:
        pieces = encode_model(model, no_bulk)
    except InvalidInput:
        return
    assert sum(len(piece) for piece in pieces if isinstance(piece, bytes)) % 2 == 0


ELEMENTS = st.sampled_from(
    ["NativeDicomModel", "DicomAttribute", "Value", "Item", "PersonName", "Alphabetic", "BulkData", "x:y"]
)
XML_ATTRIBUTES = st.sampled_from(
    ["", 'tag="00100010" vr="PN"', 'tag="00089215" vr="SQ"', 'number="0"', 'number="99999999"', 'tag="z"']
)
NODES = st.recursive(
    st.text("ab <&\x00", max_size=3),
    lambda inner: st.builds(
        lambda name, attributes, children: f"<{name} {attributes}>{''.join(children)}</{name}>",
        ELEMENTS,
        XML_ATTRIBUTES,
        st.lists(inner, max_size=3),
    ),
    max_leaves=12,
)


@given(st.one_of(NODES, NODES.map(lambda node: f"<NativeDicomModel>{node}</NativeDicomModel>")))
def test_no_document_breaks_the_reader_in_an_unforeseen_way(document: str) -> None:
    try:
        model = read_native_model(document.encode())
    except InvalidInput:
        return
    assert isinstance(model, dict)


@pytest.mark.parametrize(
    ("media_type", "head", "syntax"),
    [
        ("application/octet-stream", b"", None),
        ("application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", b"", None),
        ("image/jls", b"\xff\xd8\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00", "1.2.840.10008.1.2.4.80"),
        ("image/jls", b"\xff\xd8\xff\xda\x00\x08\x01\x01\x00\x03\x00\x00", "1.2.840.10008.1.2.4.81"),
        ("image/jpeg", b"\xff\xd8\xff\xc3\x00\x02\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00", "1.2.840.10008.1.2.4.70"),
        ("image/jpeg", b"\xff\xd8\xff\xc3\x00\x02\xff\xda\x00\x08\x01\x01\x00\x06\x00\x00", "1.2.840.10008.1.2.4.57"),
        ("image/jpeg", b"\xff\xd8\xff\xff\xc1\x00\x02", "1.2.840.10008.1.2.4.51"),
        ("image/dicom-rle", b"", "1.2.840.10008.1.2.5"),
        ("video/mp4", b"", "1.2.840.10008.1.2.4.102"),
    ],
)
def test_media_types_of_pixel_data(media_type: str, head: bytes, syntax: str | None) -> None:
    assert pixel_transfer_syntax(parse_media_type(media_type), head) == syntax


@pytest.mark.parametrize(
    ("media_type", "head"),
    [
        ("image/png", b"\x89PNG"),
        ("image/jpeg", b"GIF89a"),
        ("image/jpeg", b"\xff\xd8\xff\xc2\x00\x02\x00\x00"),
        ("image/jp2; transfer-syntax=none", b""),
    ],
)
def test_what_pixel_data_is_not_stored_as(media_type: str, head: bytes) -> None:
    with pytest.raises(UnsupportedTransferSyntax):
        pixel_transfer_syntax(parse_media_type(media_type), head)


@given(st.binary(max_size=64))
def test_no_beginning_of_an_image_is_too_odd(noise: bytes) -> None:
    for media_type, start in (
        ("image/jpeg", b"\xff\xd8\xff"),
        ("image/jls", b"\xff\xd8\xff"),
        ("image/jp2", b"\x00\x00\x00\x0cjP  \r\n\x87\n"),
    ):
        try:
            assert pixel_transfer_syntax(parse_media_type(media_type), start + noise)
            assert codestream_offset(start + noise) <= len(start + noise)
        except UnsupportedTransferSyntax:
            continue
