"""Reading the header of a stored Part 10 file: everything before the pixel data, large values left where they are."""

from collections.abc import Iterable
from typing import Any, BinaryIO, cast

import pydicom
from pydicom import Dataset, FileDataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag

from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.errors import PermanentError

DEFER_BYTES = 64 * 1024
"""Top-level values longer than this are not read with the header."""

SEQUENCE_BYTES = 64 * 1024 * 1024
"""The longest sequence or other value that is taken into memory."""

Element = RawDataElement | DataElement


def read_header(file: RangeFile, tags: Iterable[int] | None = None) -> FileDataset:
    """Parse up to the pixel data, where the file is left; only ``tags`` when given.

    Raises ``PermanentError`` when the stored file cannot be read as DICOM.
    """
    file.seek(0)
    try:
        return pydicom.dcmread(
            cast(BinaryIO, file),
            stop_before_pixels=True,
            force=True,
            defer_size=DEFER_BYTES,
            specific_tags=None if tags is None else list(tags),
        )
    except Exception as error:
        raise PermanentError(f"the stored file cannot be read as DICOM: {type(error).__name__}") from error


def read_whole(file: RangeFile) -> FileDataset:
    """The same with every value, for short files. Raises as ``read_header`` and ``load_deferred``."""
    header = read_header(file)
    for element in raw_elements(header):
        if isinstance(element, RawDataElement) and is_deferred(element):
            load_deferred(header, element, file)
    return header


def raw_elements(dataset: Dataset) -> list[Element]:
    """The elements in tag order as read, undecoded where possible; deferred ones stay deferred."""
    return [cast(Element, dataset.get_item(tag, keep_deferred=True)) for tag in sorted(dataset.keys())]


def is_deferred(element: Element) -> bool:
    """True when the value was left in the file."""
    return isinstance(element, RawDataElement) and element.value is None and element.length not in (0, 0xFFFFFFFF)


def effective_vr(element: Element) -> str | None:
    """The VR as encoded, or of the dictionary for Implicit VR; None when there is none or it depends on others."""
    if isinstance(element, DataElement):
        return str(element.VR)
    if element.VR is not None:
        return str(element.VR)
    try:
        vr = dictionary_VR(element.tag)
    except KeyError:
        return None
    return vr if len(vr) == 2 else None


def load_deferred(dataset: Dataset, element: RawDataElement, file: RangeFile) -> DataElement:
    """Take a deferred value into memory. Raises ``PermanentError`` beyond 64 MiB."""
    if element.length > SEQUENCE_BYTES:
        raise PermanentError(f"the value of {BaseTag(element.tag)} is too long to be decoded: {element.length} bytes")
    value = file.read_at(element.value_tell, element.length)
    dataset[element.tag] = cast(Any, element._replace(value=value))
    return dataset[element.tag]
