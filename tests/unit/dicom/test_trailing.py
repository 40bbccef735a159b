"""What follows the pixel data: found whole, and without reading the pixel data."""

import io
import os
import struct
from collections.abc import Callable

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)

from imaging_services.domain.dicom.bulkdata import find_bulk_value
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.trailing import read_data_set
from imaging_services.domain.errors import NotFound

PRIVATE = os.urandom(1000)
LONG = os.urandom(200_000)
FRAME = 500_000
Encode = Callable[[list[bytes]], bytes]


class Ranged:
    """A file read in ranges, which are remembered."""

    def __init__(self, content: bytes, known: int = 0) -> None:
        self.fetched: list[tuple[int, int]] = []
        self._content = content
        self.file = RangeFile(content[:known], len(content), self._fetch)

    def _fetch(self, start: int, length: int) -> bytes:
        self.fetched.append((start, length))
        return self._content[start : start + length]

    @property
    def bytes_read(self) -> int:
        return sum(length for _, length in self.fetched)


def image(syntax: UID) -> Dataset:
    """A header, and elements that sort behind Pixel Data."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID = "P1"
    private = dataset.private_block(0x7FE1, "ELSCINT1", create=True)
    private.add_new(0x01, "UN", PRIVATE)
    private.add_new(0x02, "OB", LONG)
    signature = Dataset()
    signature.MACIDNumber, signature.DigitalSignatureUID = 7, "1.2.3.4"
    signature.CertificateType, signature.Signature = "X509_1993_SIG", bytes(range(64))
    signature.is_undefined_length_sequence_item = True
    signatures = DataElement(0xFFFAFFFA, "SQ", Sequence([signature]))
    signatures.is_undefined_length = True
    dataset.add(signatures)
    dataset.add_new(0xFFFCFFFC, "OB", bytes(20))
    return dataset


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def frames(number: int) -> list[bytes]:
    return [b"\xff\xd8" + os.urandom(FRAME - 4) + b"\xff\xd9" for _ in range(number)]


def basic(images: list[bytes]) -> bytes:
    return encapsulate(images)


def without_table(images: list[bytes]) -> bytes:
    return encapsulate(images, has_bot=False)


def in_fragments(images: list[bytes]) -> bytes:
    return encapsulate(images, fragments_per_frame=3)


def with_a_wrong_table(images: list[bytes]) -> bytes:
    value = bytearray(encapsulate(images))
    struct.pack_into("<L", value, 8 + 4 * (len(images) - 1), 1234)
    return bytes(value)


def expect_everything_behind(content: bytes) -> Ranged:
    ranged = Ranged(content)
    dataset, pixels = read_data_set(ranged.file)
    assert pixels is not None
    assert pixels.tag == 0x7FE00010
    assert "PixelData" not in dataset
    assert dataset[0x7FE10010].value == "ELSCINT1"
    assert dataset[0x7FE11001].value == PRIVATE
    (signature,) = dataset[0xFFFAFFFA].value
    assert (signature.MACIDNumber, signature.Signature) == (7, bytes(range(64)))
    assert dataset[0xFFFCFFFC].value == bytes(20)
    value = find_bulk_value(ranged.file, (0x7FE11002,))
    assert content[value.offset : value.offset + value.length] == LONG
    assert find_bulk_value(ranged.file, (0xFFFAFFFA, 1, 0x04000120)).value == bytes(range(64))
    return ranged


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_native_pixel_data_is_passed_over(syntax: UID) -> None:
    dataset = image(syntax)
    dataset.BitsAllocated = 16
    dataset.PixelData = os.urandom(20 * FRAME)
    dataset["PixelData"].VR = "OW"
    ranged = expect_everything_behind(written(dataset))
    assert ranged.bytes_read < 20 * FRAME // 5


@pytest.mark.parametrize("encode", [basic, without_table, in_fragments, with_a_wrong_table])
def test_encapsulated_pixel_data_is_walked_over(encode: Encode) -> None:
    dataset = image(JPEGBaseline8Bit)
    dataset.NumberOfFrames = 12
    dataset.PixelData = encode(frames(12))
    dataset["PixelData"].is_undefined_length = True
    content = written(dataset)
    ranged = expect_everything_behind(content)
    assert ranged.bytes_read < len(content) // 2


def test_an_extended_offset_table_leads_to_the_last_frame() -> None:
    dataset = image(JPEGBaseline8Bit)
    value, table, lengths = encapsulate_extended(frames(12))
    dataset.NumberOfFrames = 12
    dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = value, table, lengths
    dataset["PixelData"].is_undefined_length = True
    content = written(dataset)
    ranged = Ranged(content)
    read_data_set(ranged.file)
    assert len(ranged.fetched) <= 5
    expect_everything_behind(content)


def test_a_small_fragment_does_not_cost_a_fetch_each() -> None:
    dataset = image(JPEGBaseline8Bit)
    dataset.NumberOfFrames = 2000
    dataset.PixelData = without_table([b"\xff\xd8" + bytes(500) + b"\xff\xd9"] * 2000)
    dataset["PixelData"].is_undefined_length = True
    ranged = Ranged(written(dataset))
    read_data_set(ranged.file)
    assert len(ranged.fetched) < 12


def test_nothing_is_fetched_when_nothing_follows() -> None:
    for syntax, value in ((ExplicitVRLittleEndian, os.urandom(FRAME)), (JPEGBaseline8Bit, basic(frames(1)))):
        dataset = image(syntax)
        for tag in [element.tag for element in dataset if element.tag > 0x7FE00010]:
            del dataset[tag]
        dataset.BitsAllocated, dataset.PixelData = 8, value
        dataset["PixelData"].is_undefined_length = syntax == JPEGBaseline8Bit
        content = written(dataset)
        ranged = Ranged(content, known=len(content) - len(value) + 64)
        _, pixels = read_data_set(ranged.file)
        assert pixels is not None
        assert ranged.fetched == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 30,
        b"garbage at the end of the file",
        struct.pack("<HH2sHL", 0x7FE1, 0x1001, b"OB", 0, 99_999),
        struct.pack("<HH2sHLHHL", 0xFFFA, 0xFFFA, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 80),
        struct.pack("<HH2sHL", 0xFFFA, 0xFFFA, b"OB", 0, 0xFFFFFFFF),
    ],
    ids=["zeros", "text", "too long", "cut sequence", "no end"],
)
def test_what_is_no_element_is_left_out(garbage: bytes) -> None:
    dataset = image(ExplicitVRLittleEndian)
    for tag in [element.tag for element in dataset if element.tag > 0x7FE1FFFF or element.tag == 0x7FE11002]:
        del dataset[tag]
    dataset.BitsAllocated, dataset.PixelData = 8, os.urandom(1000)
    ranged = Ranged(written(dataset) + garbage)
    got, pixels = read_data_set(ranged.file)
    assert pixels is not None
    assert got[0x7FE11001].value == PRIVATE
    assert max(got.keys()) in (0x7FE11001, 0xFFFAFFFA)


def test_cut_pixel_data_hides_nothing_else() -> None:
    dataset = image(JPEGBaseline8Bit)
    dataset.PixelData = basic(frames(2))
    dataset["PixelData"].is_undefined_length = True
    content = written(dataset)
    got, pixels = read_data_set(Ranged(content[: 2 * FRAME]).file)
    assert pixels is not None
    assert (got.PatientID, max(got.keys()) < 0x7FE00010) == ("P1", True)
    with pytest.raises(NotFound):
        find_bulk_value(Ranged(content[: 2 * FRAME]).file, (0x7FE11002,))


def test_a_data_set_without_pixel_data_is_read_to_its_end() -> None:
    got, pixels = read_data_set(Ranged(written(image(ExplicitVRLittleEndian))).file)
    assert pixels is None
    assert got[0xFFFCFFFC].value == bytes(20)
    assert got[0x7FE11001].value == PRIVATE
