"""Finding the value that a BulkDataURI names (PS3.18 sections 10.4.1.1.5 and F.2.6)."""

from dataclasses import dataclass

from pydicom import Dataset
from pydicom.dataelem import RawDataElement

from imaging_services.domain.dicom.header import effective_vr, is_deferred, load_deferred, read_header
from imaging_services.domain.dicom.json_model import BulkPath
from imaging_services.domain.dicom.json_values import word_size
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.trailing import read_data_set
from imaging_services.domain.errors import InvalidInput, NotFound

PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True, slots=True)
class BulkValue:
    """A value: in memory, or at ``offset`` in the stored file. ``swap`` is the word size to be swapped to little
    endian order, in which bulk data travels (PS3.18 section 8.7.3.3.2); 1 is none."""

    length: int
    value: bytes | None = None
    offset: int = 0
    swap: int = 1


def parse_path(text: str) -> BulkPath:
    """Read ``54000100/1/54001010``. Raises ``InvalidInput``."""
    parts = text.split("/")
    try:
        path = tuple(int(part, 16 if index % 2 == 0 else 10) for index, part in enumerate(parts))
    except ValueError:
        path = ()
    if len(path) % 2 == 0 or any(len(part) != 8 for part in parts[::2]) or any(item < 1 for item in path[1::2]):
        raise InvalidInput("bulk data is named by tag, or by tag/item number/tag, such as 54000100/1/54001010")
    return path


def find_bulk_value(file: RangeFile, path: BulkPath) -> BulkValue:
    """The value at ``path``, before or behind the pixel data. Raises ``NotFound``."""
    dataset: Dataset = read_header(file) if path[0] < PIXEL_DATA else read_data_set(file)[0]
    for tag, number in zip(path[:-1:2], path[1::2], strict=True):
        dataset = _item(dataset, file, tag, number)
    return _value(dataset, path[-1])


def _item(dataset: Dataset, file: RangeFile, tag: int, number: int) -> Dataset:
    element = dataset.get_item(tag, keep_deferred=True) if tag in dataset else None
    if isinstance(element, RawDataElement) and is_deferred(element):
        load_deferred(dataset, element, file)
    items = dataset[tag].value if element is not None and dataset[tag].VR == "SQ" else []
    if number > len(items):
        raise NotFound(f"the instance has no item {number} of {tag:08X}")
    item: Dataset = items[number - 1]
    return item


def _value(dataset: Dataset, tag: int) -> BulkValue:
    element = dataset.get_item(tag, keep_deferred=True) if tag in dataset else None
    if element is None:
        raise NotFound(f"the instance has no value for {tag:08X}")
    if isinstance(element, RawDataElement):
        swap = 1 if element.is_little_endian else word_size(effective_vr(element) or "UN")
        if is_deferred(element):
            return BulkValue(element.length, offset=element.value_tell, swap=swap)
        return BulkValue(len(element.value or b""), value=element.value or b"", swap=swap)
    if not isinstance(element.value, bytes):
        raise NotFound(f"{tag:08X} is no bulk data: it is part of the metadata")
    return BulkValue(len(element.value), value=element.value)
