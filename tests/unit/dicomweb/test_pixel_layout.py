"""Where frames lie: offset tables, scans of fragments, and large values left in the file."""

import io
import struct
from collections.abc import Sequence
from contextlib import suppress

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from imaging_services.domain.dicom.bulkdata import find_bulk_value, parse_path
from imaging_services.domain.dicom.header import DEFER_BYTES, read_header
from imaging_services.domain.dicom.json_model import JsonModel, format_path
from imaging_services.domain.dicom.pixel_layout import read_layout
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.errors import NotFound

FRAMES = [b"\xff\xd8" + bytes([65 + number]) * (10 + 2 * number) + b"\xff\xd9" for number in range(4)]


def a_dataset(compressed: bool = True) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if compressed else ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset.NumberOfFrames = len(FRAMES)
    dataset.Rows = dataset.Columns = 2
    dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.PhotometricInterpretation = 1, 8, "MONOCHROME2"
    return dataset


def written(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def opened(content: bytes, fetched: list[int] | None = None) -> RangeFile:
    def fetch(start: int, length: int) -> bytes:
        if fetched is not None:
            fetched.append(length)
        return content[start : start + length]

    return RangeFile(content[:200], len(content), fetch, block=4096)


def frames_of(content: bytes) -> list[bytes]:
    layout = read_layout(opened(content))
    places = [layout.place(number + 1) for number in range(layout.frames)]
    return [b"".join(content[start : start + length] for start, length in place.spans) for place in places]


def fragments(pieces: Sequence[bytes], table: Sequence[int] = ()) -> bytes:
    value = struct.pack("<HHI", 0xFFFE, 0xE000, 4 * len(table)) + struct.pack(f"<{len(table)}I", *table)
    for piece in pieces:
        value += struct.pack("<HHI", 0xFFFE, 0xE000, len(piece)) + piece
    return value


@pytest.mark.parametrize("fragments_per_frame", [1, 3])
@pytest.mark.parametrize("has_bot", [True, False])
def test_frames_are_found_by_table_or_by_content(fragments_per_frame: int, has_bot: bool) -> None:
    dataset = a_dataset()
    dataset.PixelData = encapsulate(FRAMES, fragments_per_frame=fragments_per_frame, has_bot=has_bot)
    assert frames_of(written(dataset)) == FRAMES


def test_frames_are_found_by_the_extended_offset_table() -> None:
    dataset = a_dataset()
    dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(FRAMES)
    fetched: list[int] = []
    content = written(dataset)
    assert frames_of(content) == FRAMES
    read_layout(opened(content, fetched))
    assert sum(fetched[1:]) <= 8 * (len(FRAMES) + 1), "the table says it all, only the heads of fragments are looked at"


def test_a_table_that_does_not_fit_is_not_believed() -> None:
    dataset = a_dataset()
    dataset.PixelData = fragments(FRAMES, [0, 8, 16, 24])
    dataset["PixelData"].is_undefined_length = True
    assert frames_of(written(dataset)) == FRAMES


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [(FRAMES[:2], "2 fragments for 4 frames"), ([b"ab"] * 6, "cannot be told apart")],
)
def test_frames_that_cannot_be_found_are_not_found(pieces: list[bytes], reason: str) -> None:
    dataset = a_dataset()
    dataset.PixelData = fragments(pieces)
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(NotFound, match=reason):
        read_layout(opened(written(dataset)))


def test_a_table_that_is_longer_than_the_file_is_broken() -> None:
    dataset = a_dataset()
    dataset.PixelData = fragments(FRAMES)
    dataset["PixelData"].is_undefined_length = True
    content = bytearray(written(dataset))
    at = content.index(b"\xfe\xff\x00\xe0")
    for length in (1 << 20, 0xFFFFFFFC):
        struct.pack_into("<I", content, at + 4, length)
        with pytest.raises(NotFound, match="Basic Offset Table"):
            read_layout(opened(bytes(content)))


def test_frames_beyond_the_last_and_instances_without_pixels_are_not_found() -> None:
    dataset = a_dataset(compressed=False)
    dataset.PixelData = bytes(range(14))  # two bytes short of four frames
    dataset["PixelData"].VR = "OB"
    layout = read_layout(opened(written(dataset)))
    assert layout.place(3).length == 4
    for number in (4, 5):
        with pytest.raises(NotFound):
            layout.place(number)
    del dataset.PixelData
    with pytest.raises(NotFound, match="no pixel data"):
        read_layout(opened(written(dataset)))


def test_large_values_stay_in_the_file_until_they_are_asked_for() -> None:
    dataset = a_dataset(compressed=False)
    dataset.EncapsulatedDocument = bytes(3_000_000)
    item = pydicom.Dataset()
    item.add_new(0x54001010, "OW", b"\x01\x02" * DEFER_BYTES)
    dataset.WaveformSequence = [item]
    content = written(dataset)
    fetched: list[int] = []
    file = opened(content, fetched)
    document = JsonModel(file, format_path).convert(read_header(file))
    assert document["00420011"] == {"vr": "OB", "BulkDataURI": "00420011"}
    assert document["54000100"]["Value"][0]["54001010"]["BulkDataURI"] == "54000100/1/54001010"
    assert max(fetched) < 200_000
    large = find_bulk_value(opened(content), parse_path("00420011"))
    assert (large.value, large.length) == (None, 3_000_000)
    assert content[large.offset : large.offset + large.length] == dataset.EncapsulatedDocument
    nested = find_bulk_value(opened(content), parse_path("54000100/1/54001010"))
    assert nested.value == b"\x01\x02" * DEFER_BYTES
    with pytest.raises(NotFound):
        find_bulk_value(opened(content), parse_path("54000100/2/54001010"))


@given(st.binary(max_size=400))
def test_no_file_breaks_the_reader_in_an_unforeseen_way(noise: bytes) -> None:
    dataset = a_dataset()
    dataset.PixelData = fragments(FRAMES)
    dataset["PixelData"].is_undefined_length = True
    content = written(dataset)
    cut = content[: len(content) - len(noise)] + noise
    with suppress(NotFound):
        assert read_layout(opened(cut)).frames == len(FRAMES)
