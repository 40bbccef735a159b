"""Small instances made for a test, and bytes of data sets made by hand."""

import io
import struct
from collections.abc import AsyncIterator

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

EXPLICIT = str(ExplicitVRLittleEndian)


def instance(**attributes: object) -> pydicom.Dataset:
    """A CT instance of 8 by 8 pixels with fresh UIDs; attributes by keyword, None leaves one out."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = "CT"
    dataset.PatientName = "Doe^Jane"
    dataset.PatientID = "P-1"
    dataset.Rows = dataset.Columns = 8
    dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = bytes(range(128))
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: pydicom.Dataset, transfer_syntax: str = EXPLICIT) -> bytes:
    """The data set's bytes, without a file meta header."""
    buffer = io.BytesIO()
    uid = pydicom.uid.UID(transfer_syntax)
    pydicom.dcmwrite(buffer, dataset, implicit_vr=uid.is_implicit_VR, little_endian=uid.is_little_endian)
    return buffer.getvalue()


def part10(dataset: pydicom.Dataset, transfer_syntax: str = EXPLICIT) -> bytes:
    """The data set as a Part 10 file that pydicom wrote."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    del dataset.file_meta
    return buffer.getvalue()


async def blocks(content: bytes, size: int = 16372) -> AsyncIterator[bytes]:
    """The content as an association or a connection gives it."""
    for position in range(0, len(content), size):
        yield content[position : position + size]


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An Explicit VR Little Endian element, if asked for with a length that lies."""
    length = len(value) if length is None else length
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC"):
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, length) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length) + value
