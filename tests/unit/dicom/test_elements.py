"""The header scanner against pydicom, on every file that pydicom ships, and against hostile bytes."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging_services.domain.dicom.elements import (
    SOP_INSTANCE_UID,
    Header,
    guess_encoding,
    scan,
)
from imaging_services.domain.dicom.part10 import read_file_head
from imaging_services.domain.dicom.transfer_syntaxes import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    native_transfer_syntax,
)
from imaging_services.domain.errors import NotDicom
from imaging_services.domain.ingest.announcement import elements_json
from imaging_services.domain.ingest.heading import look
from support.instances import element, encoded, instance

ROOT = Path(pydicom.__file__).parent / "data"
FILES = sorted(p for d in ("test_files", "charset_files") for p in (ROOT / d).rglob("*") if p.is_file())
NOT_DICOM = {".txt", ".json", ".dump", ".gz", ".icc", ".py", ""}
REFUSED = {
    "no_meta.dcm": "neither a DICOM file nor a data set",  # its first byte is not DICOM
}
TRUNCATED = {"rtplan_truncated.dcm"}  # cut within a sequence: what came before is read
LONG = {"examples_ybr_color.dcm": {"00191050", "00191060"}}  # longer than 4096 bytes: null
TRAILING_DELIMITER = {"chrX1.dcm", "chrX2.dcm"}  # pydicom leaves a trailing = out
BINARY = {"OB", "OW", "UN", "OF", "OD", "OL", "OV", "OB or OW"}
UNDEFINED = 0xFFFFFFFF


def _scanned(path: Path) -> tuple[Header, dict[str, dict]]:
    data = path.read_bytes()
    head = read_file_head(data, ended=True)
    body = data[head.data_set :]
    header, _ = look(body, head.transfer_syntax or native_transfer_syntax(guess_encoding(body)), ended=True)
    return header, {entry["group"] + entry["element"]: entry for entry in elements_json(header)}


def _is_dicom(path: Path) -> bool:
    return path.suffix not in NOT_DICOM or path.read_bytes()[128:132] == b"DICM"


@pytest.mark.parametrize("path", [p for p in FILES if _is_dicom(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_is_read_as_pydicom_reads_it(path: Path) -> None:
    if path.name in REFUSED:
        with pytest.raises(NotDicom, match=REFUSED[path.name]):
            _scanned(path)
        return
    header, ours = _scanned(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {
            f"{int(e.tag):08X}": (e.VR, _texts(e)) for e in pydicom.dcmread(path, force=True) if e.tag < 0x7FE00008
        }
    assert header.complete
    assert header.truncated == (path.name in TRUNCATED)
    if header.truncated:
        theirs = {tag: found for tag, found in theirs.items() if tag in ours}
    assert set(ours) == set(theirs)
    for tag, (vr, values) in theirs.items():
        if ours[tag]["vr"] == "UN" or vr in BINARY or tag in LONG.get(path.name, ()):
            continue
        assert ours[tag]["vr"] == vr, tag
        assert _same(vr, list(ours[tag].get("values") or filter(None, [ours[tag]["value"]])), values, path), tag


def _texts(found: pydicom.DataElement) -> list[str]:
    if found.VR == "SQ" or found.value is None:
        return []
    values = found.value if isinstance(found.value, (list, pydicom.multival.MultiValue)) else [found.value]
    if found.VR == "AT":
        return [f"{int(value):08X}" for value in values]
    texts = [str(v) if found.VR == "PN" else str(getattr(v, "original_string", v)) for v in values if v is not None]
    texts = [text.strip(" \0").replace("\0", "") for text in texts]
    return texts if any(texts) else []


def _same(vr: str, ours: list[str], theirs: list[str], path: Path) -> bool:
    if vr == "FL":
        return [np.float32(text) for text in ours] == [np.float32(text) for text in theirs]
    if path.name in TRAILING_DELIMITER:
        ours = [text.rstrip("=") for text in ours]
    return ours == theirs


@pytest.mark.parametrize("path", [p for p in FILES if not _is_dicom(p)], ids=lambda p: p.name)
def test_files_of_other_kinds_are_not_dicom(path: Path) -> None:
    with pytest.raises(NotDicom):
        _scanned(path)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_each_native_encoding_is_guessed_and_scanned(syntax: str) -> None:
    dataset = instance()
    body = encoded(dataset, syntax)
    guess = guess_encoding(body)
    assert native_transfer_syntax(guess) == syntax
    header = scan(body, guess, ended=True)
    assert header.uid(SOP_INSTANCE_UID) == dataset.SOPInstanceUID
    assert body[header.pixel_data :][:2] in (b"\xe0\x7f", b"\x7f\xe0")
    assert header.pixel_data_end == len(body)


def test_a_head_is_incomplete_until_pixel_data_is_reached() -> None:
    body = encoded(instance())
    whole = scan(body, EXPLICIT_LITTLE, ended=False)
    assert whole.complete
    for length in range(whole.pixel_data + 8):
        part = scan(body[:length], EXPLICIT_LITTLE, ended=False)
        assert not part.complete
        assert part.elements == whole.elements[: len(part.elements)]


def _item(content: bytes, *, defined: bool = True) -> bytes:
    end = b"" if defined else struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content) if defined else UNDEFINED) + content + end


_SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
_AFTER = element(0x00200010, b"SH", b"after ")


@pytest.mark.parametrize(
    "sequence",
    [
        element(0x00081140, b"SQ", _item(element(0x00080018, b"UI", b"1.2\0"))),
        element(0x00081140, b"SQ", _item(element(0x00080018, b"UI", b"1.2\0")) + _SEQUENCE_END, UNDEFINED),
        element(
            0x00081140, b"SQ", _item(element(0x00080018, b"UI", b"1.2\0"), defined=False) + _SEQUENCE_END, UNDEFINED
        ),
        element(0x00081140, b"SQ", _SEQUENCE_END, UNDEFINED),
        element(0x00081140, b"SQ", b""),
        # Implicit VR within an item of an Explicit VR sequence
        element(
            0x00081140,
            b"SQ",
            _item(struct.pack("<HHL", 8, 0x18, 4) + b"1.2\0", defined=False) + _SEQUENCE_END,
            UNDEFINED,
        ),
        # UN of undefined length: Implicit VR within, and Explicit VR as some send it
        element(
            0x00091010,
            b"UN",
            _item(struct.pack("<HHL", 8, 0x18, 4) + b"1.2\0", defined=False) + _SEQUENCE_END,
            UNDEFINED,
        ),
        element(
            0x00091010, b"UN", _item(element(0x00080018, b"UI", b"1.2\0"), defined=False) + _SEQUENCE_END, UNDEFINED
        ),
        # a sequence within a sequence, both of undefined length
        element(
            0x00081140,
            b"SQ",
            _item(element(0x00081150, b"SQ", _item(b"", defined=False) + _SEQUENCE_END, UNDEFINED), defined=False)
            + _SEQUENCE_END,
            UNDEFINED,
        ),
    ],
)
def test_sequences_are_skipped_whatever_their_form(sequence: bytes) -> None:
    header = scan(sequence + _AFTER, EXPLICIT_LITTLE, ended=True)
    assert [(tag, vr) for tag, vr, _ in header.elements] == [
        (int.from_bytes(sequence[:2], "little") << 16 | int.from_bytes(sequence[2:4], "little"), "SQ"),
        (0x00200010, "SH"),
    ]


def test_hostile_nesting_is_not_dicom() -> None:
    level = struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, UNDEFINED) + struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
    with pytest.raises(NotDicom, match="nested deeper"):
        scan(level * 100_000, EXPLICIT_LITTLE, ended=True)


@pytest.mark.parametrize("length", [9, 0xFFFF, 0xFFFE])
def test_a_length_beyond_the_end_is_not_dicom(length: int) -> None:
    body = element(0x00080018, b"UI", b"1.2.3.4\0") + element(0x00100010, b"PN", b"Doe^Jane", length)
    with pytest.raises(NotDicom, match="beyond the end"):
        scan(body, EXPLICIT_LITTLE, ended=True)


def test_zero_bytes_at_the_end_are_padding_and_others_a_cut_element() -> None:
    body = element(0x00080018, b"UI", b"1.2.3.4\0")
    assert scan(body + b"\0\0\0", EXPLICIT_LITTLE, ended=True).complete
    with pytest.raises(NotDicom):
        scan(body + b"\x10\0\x10", EXPLICIT_LITTLE, ended=True)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([EXPLICIT_LITTLE, EXPLICIT_BIG, IMPLICIT_LITTLE]), st.booleans())
def test_any_bytes_give_a_header_or_not_dicom(data: bytes, encoding: object, ended: bool) -> None:
    try:
        header = scan(data, encoding, ended=ended)
    except NotDicom:
        return
    elements_json(header)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_gives_a_header_or_not_dicom(data: st.DataObject) -> None:
    body = bytearray((ROOT / "test_files/rtplan.dcm").read_bytes()[300:])
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = scan(bytes(body), IMPLICIT_LITTLE, ended=True)
    except NotDicom:
        return
    elements_json(header)
