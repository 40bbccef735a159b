"""File meta headers: what peers send, and the frozen one that we write."""

import hashlib
import io
import struct

import pydicom
import pytest

from imaging_services.domain.dicom.part10 import FileHead, Part10Stream, file_meta, read_file_head
from imaging_services.domain.dicom.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    is_deflated,
    is_encapsulated,
    name_of,
)
from imaging_services.domain.errors import NotDicom
from support.instances import blocks, encoded, instance, part10


def test_our_meta_header_never_changes() -> None:
    meta = file_meta(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid="1.2.3", transfer_syntax="1.2.840.10008.1.2.1"
    )
    assert hashlib.sha256(meta).hexdigest() == "ae0a6709d8c7ef47afd89c8fd9afea9d52a537319f72b335fb89c6da6e4dd4da"


def test_our_meta_header_is_read_by_pydicom() -> None:
    meta = file_meta(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid="1.2.3", transfer_syntax="1.2.840.10008.1.2.1"
    )
    read = pydicom.dcmread(io.BytesIO(meta)).file_meta
    assert read.FileMetaInformationGroupLength == len(meta) - 144
    assert read.MediaStorageSOPInstanceUID == "1.2.3"
    assert read.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert read.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    pydicom.dataset.validate_file_meta(read, enforce_standard=False)


def _meta(content: bytes, group_length: int | None = None) -> bytes:
    length = len(content) if group_length is None else group_length
    return struct.pack("<HH2sHL", 2, 0, b"UL", 4, length) + content


_SYNTAX = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
_IMPLICIT_SYNTAX = struct.pack("<HHL", 2, 0x10, 20) + b"1.2.840.10008.1.2.1\0"
_PREAMBLE = bytes(128) + b"DICM"
_BODY = encoded(instance())


@pytest.mark.parametrize(
    "head",
    [
        _PREAMBLE + _meta(_SYNTAX),
        _PREAMBLE + _meta(_SYNTAX, group_length=0),
        _PREAMBLE + _meta(_SYNTAX, group_length=0xFFFF),
        _PREAMBLE + _SYNTAX,
        _PREAMBLE + _IMPLICIT_SYNTAX,
        b"DICM" + _meta(_SYNTAX),
        _meta(_SYNTAX),
    ],
)
def test_meta_headers_are_read_whatever_their_form(head: bytes) -> None:
    assert read_file_head(head + _BODY, ended=False) == FileHead(len(head), EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_missing_or_malformed_transfer_syntax_is_none() -> None:
    assert read_file_head(_PREAMBLE + _meta(b"") + _BODY, ended=True) == FileHead(144, None)
    malformed = _SYNTAX.replace(b"1.2.840", b"?.?.???")
    assert read_file_head(_PREAMBLE + malformed + _BODY, ended=True) == FileHead(132 + len(_SYNTAX), None)


def test_a_bare_data_set_has_no_head() -> None:
    assert read_file_head(_BODY, ended=True) == FileHead(0, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"%PDF-1.7 " + bytes(300),
        b"\x89PNG\r\n\x1a\n" + bytes(300),
        b"PK\x03\x04" + bytes(300),
        bytes(400),
        b"\xff" * 400,
        _PREAMBLE,
        _PREAMBLE + _SYNTAX[:10],
        _PREAMBLE + _SYNTAX[:-4],
        _PREAMBLE + struct.pack("<HH2sHL", 2, 1, b"OB", 0, 0xFFFFFFFF) + bytes(100),
        _PREAMBLE + struct.pack("<HH2sHL", 2, 0x102, b"OB", 0, 0x7FFFFFFF) + bytes(100),
    ],
)
def test_broken_heads_are_not_dicom(data: bytes) -> None:
    with pytest.raises(NotDicom):
        _read_into(data)


def _read_into(data: bytes) -> None:
    """Read the head, and what should be the data set's beginning."""
    found = read_file_head(data, ended=True)
    read_file_head(data[found.data_set :], ended=True)


@pytest.mark.parametrize("size", [1, 7, 131, 5000])
async def test_the_data_set_is_found_whatever_the_blocks(size: int) -> None:
    stream = Part10Stream(blocks(part10(instance(PatientID="x")), size))
    assert await stream.open("1.2.840.10008.1.2.4.50") == EXPLICIT_VR_LITTLE_ENDIAN  # the file's own says it
    received = b"".join([block async for block in stream])
    assert received[:4] == b"\x08\x00\x16\x00"
    assert received.endswith(bytes(range(128)))


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN])
async def test_without_meta_header_the_first_element_tells_the_transfer_syntax(syntax: str) -> None:
    body = encoded(instance(), syntax)
    stream = Part10Stream(blocks(body, 10))
    assert await stream.open() == syntax
    assert b"".join([block async for block in stream]) == body


async def test_without_meta_header_the_declared_transfer_syntax_counts() -> None:
    stream = Part10Stream(blocks(_BODY))
    assert await stream.open("1.2.840.10008.1.2.4.50") == "1.2.840.10008.1.2.4.50"


def test_transfer_syntaxes_tell_their_nature() -> None:
    assert [is_encapsulated(uid) for uid in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50", "1.2.3")] == [
        False,
        True,
        True,
    ]
    assert is_deflated("1.2.840.10008.1.2.1.99")
    assert not is_deflated("1.2.840.10008.1.2.5")
    assert name_of("1.2.840.10008.1.2.5") == "RLE Lossless"
    assert name_of("1.2.3") == "1.2.3"
