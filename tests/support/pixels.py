"""Stored instances with pixel data for tests, and what peers make of them."""

import asyncio
import dataclasses
import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from support.dicom_files import DicomFile, storable_files

EXPLICIT = "1.2.840.10008.1.2.1"


def pydicom_file(name: str) -> DicomFile:
    """One of the files that pydicom ships."""
    return next(file for file in storable_files() if file.path.name == name)


def an_image(array: np.ndarray, *, bits_stored: int | None = None, **attributes: Any) -> bytes:
    """A Part 10 file in Explicit VR Little Endian; ``array`` is (frames, rows, columns[, 3])."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7.2", "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    dataset.PatientName, dataset.ImageType = "Doe^Jane", ["ORIGINAL", "PRIMARY"]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = array.shape[:3]
    dataset.SamplesPerPixel = array.shape[3] if array.ndim == 4 else 1
    dataset.PhotometricInterpretation = "RGB" if array.ndim == 4 else "MONOCHROME2"
    if array.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = array.dtype.itemsize * 8
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelData = array.astype(array.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


async def stored(content: bytes, store: ObjectStore | None = None) -> tuple[ObjectStore, InstanceLocation]:
    """Put a Part 10 file into a storage space."""
    store = store or MemoryObjectStore()
    head = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    key = f"{hashlib.sha256(content).hexdigest()}.dcm"
    await store.put(key, content)
    return store, InstanceLocation(
        study_instance_uid=str(head.StudyInstanceUID),
        series_instance_uid=str(head.SeriesInstanceUID),
        sop_instance_uid=str(head.SOPInstanceUID),
        sop_class_uid=str(head.SOPClassUID),
        transfer_syntax_uid=str(head.file_meta.TransferSyntaxUID),
        provider="north",
        object_name=key,
        bucket_name=None,
        size=len(content),
        digest=key[:-4],
        pixel_data_offset=None,
        last_modified=datetime(2026, 11, 21, 3, 30, tzinfo=UTC),
    )


def moved(location: InstanceLocation, **changes: Any) -> InstanceLocation:
    """The location with other values."""
    return dataclasses.replace(location, **changes)


async def decoded_by_dcmtk(program: str, content: bytes, folder: Path) -> pydicom.Dataset:
    """Uncompress with ``dcmdjpeg``, ``dcmdjpls`` or ``dcmdrle``."""
    source, target = folder / "in.dcm", folder / "out.dcm"
    source.write_bytes(content)
    process = await asyncio.create_subprocess_exec(
        program, str(source), str(target), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return pydicom.dcmread(target)
