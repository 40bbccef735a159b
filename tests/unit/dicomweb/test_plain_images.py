"""Frames that are found by the header scan alone are those that pydicom finds."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.errors import ImagingError
from imaging_services.domain.retrieve.frames import read_frames
from imaging_services.domain.retrieve.plain_images import plain_frames
from support.dicom_files import DicomFile, storable_files
from support.pixels import an_image

GREY = np.zeros((3, 5, 7), np.uint16)


def by_pydicom(content: bytes) -> object:
    return read_frames(RangeFile(content, len(content), lambda start, length: content[start : start + length]))


def head_of(content: bytes) -> bytes:
    """What is fetched when the manifest knows where the pixel data begins."""
    return content[: content.index(b"\xe0\x7f\x10\x00") + 64]


@pytest.mark.parametrize("file", storable_files(), ids=lambda file: file.path.name)
def test_what_is_found_is_what_pydicom_finds(file: DicomFile) -> None:
    content = file.path.read_bytes()
    found = plain_frames(content, len(content))
    if found is not None:
        assert found == by_pydicom(content)


@pytest.mark.parametrize(
    "content",
    [
        an_image(GREY),
        an_image(GREY, bits_stored=12),
        an_image(GREY.astype(np.int16)),
        an_image(GREY[:1].astype(np.uint8)),
        an_image(np.zeros((1, 3, 5, 3), np.uint8)),
    ],
    ids=["frames", "12 bits", "signed", "odd length", "colour"],
)
def test_ordinary_images_need_no_pydicom(content: bytes) -> None:
    assert plain_frames(head_of(content), len(content)) == by_pydicom(content)


def test_implicit_vr_is_ordinary_too() -> None:
    dataset, buffer = pydicom.dcmread(io.BytesIO(an_image(GREY))), io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True, enforce_file_format=True)
    content = buffer.getvalue()
    assert plain_frames(head_of(content), len(content)) == by_pydicom(content) is not None


def test_a_value_that_ends_early_is_as_long_as_it_is() -> None:
    content = an_image(GREY)[:-9]
    assert plain_frames(head_of(content), len(content)) == by_pydicom(content)


@pytest.mark.parametrize(
    "change",
    [
        {"PhotometricInterpretation": "YBR_FULL_422"},
        {"NumberOfFrames": None},
        {"Rows": None},
        {"Columns": 0},
        {"BitsStored": 17},
        {"SamplesPerPixel": 0},
    ],
    ids=str,
)
def test_the_unusual_is_left_to_pydicom(change: dict[str, object]) -> None:
    content = an_image(GREY, **change)
    assert plain_frames(head_of(content), len(content)) is None


@pytest.mark.parametrize(
    ("element", "other"), [(b"\x28\x00\x08\x00IS", b"US"), (b"\x28\x00\x04\x00CS", b"US")], ids=["frames", "colours"]
)
def test_values_of_another_vr_are_left_to_pydicom(element: bytes, other: bytes) -> None:
    content = an_image(GREY)
    assert element in content
    assert plain_frames(content.replace(element, element[:4] + other), len(content)) is None


def test_half_a_header_says_nothing() -> None:
    content = an_image(GREY)
    head = head_of(content)
    assert {plain_frames(head[:end], len(content)) for end in range(len(head) - 52)} == {None}


def test_what_is_not_dicom_says_nothing() -> None:
    assert plain_frames(b"\x00" * 1000, 1000) is None
    with pytest.raises(ImagingError):
        by_pydicom(b"\x00" * 1000)
