"""The whole data set of a stored file but its pixel data: what follows that, such as private groups and digital
signatures, is found without reading it."""

from collections.abc import Iterator
from typing import BinaryIO, cast

import structlog
from pydicom import Dataset, FileDataset
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator

from imaging_services.domain.dicom.fragments import end_of_fragments
from imaging_services.domain.dicom.header import DEFER_BYTES, Element, is_deferred, raw_elements, read_header
from imaging_services.domain.dicom.pixel_layout import PixelElement, pixel_element
from imaging_services.domain.dicom.range_file import RangeFile

log = structlog.get_logger(__name__)

_EXTENDED_OFFSET_TABLE = 0x7FE00001
_UNDEFINED = 0xFFFFFFFF


def read_data_set(file: RangeFile) -> tuple[Dataset, PixelElement | None]:
    """All elements but Pixel Data, and where that lies. Raises ``PermanentError`` when the header cannot be read; what
    cannot be read behind the pixel data is left out, as it was before it came to us."""
    header = read_header(file)
    pixels = pixel_element(file, header)
    trailing = [] if pixels is None else list(_trailing(file, header, pixels))
    if not trailing:
        return header, pixels
    # A new data set takes elements undecoded; an item assignment would decode private ones, even those left behind.
    whole = Dataset({element.tag: element for element in [*raw_elements(header), *trailing]})
    implicit, little_endian = header.original_encoding
    whole.set_original_encoding(implicit, little_endian, header.original_character_set)
    return whole, pixels


def _trailing(file: RangeFile, header: FileDataset, pixels: PixelElement) -> Iterator[Element]:
    """Elements in ascending order of tags, up to the first that is none."""
    end = _end(file, header, pixels)
    if end is None or end >= file.size:
        return
    file.seek(end)
    implicit, little_endian = header.original_encoding
    last = pixels.tag
    elements = data_element_generator(
        cast(BinaryIO, file),
        bool(implicit),
        bool(little_endian),
        defer_size=DEFER_BYTES,
        encoding=header._character_set,
    )
    try:
        for element in elements:
            if element.tag <= last or _breaks_off(element, file):
                break
            last = int(element.tag)
            yield element
    except Exception as error:  # noqa: BLE001 - bytes that are no element must not hide those that are
        log.info("what follows the pixel data cannot be read", error=type(error).__name__)


def _breaks_off(element: Element, file: RangeFile) -> bool:
    if not isinstance(element, RawDataElement) or element.length == _UNDEFINED:
        return False
    return element.value_tell + element.length > file.size


def _end(file: RangeFile, header: FileDataset, pixels: PixelElement) -> int | None:
    """Where the Pixel Data element ends; None when it does not."""
    if pixels.length != _UNDEFINED:
        return pixels.offset + pixels.length
    return end_of_fragments(file, pixels.offset, _last_extended_offset(file, header))


def _last_extended_offset(file: RangeFile, header: FileDataset) -> int | None:
    """The last frame's offset in the Extended Offset Table (PS3.3 section C.7.6.3.1.8), without reading the others."""
    if _EXTENDED_OFFSET_TABLE not in header:
        return None
    element = cast(Element, header.get_item(_EXTENDED_OFFSET_TABLE, keep_deferred=True))
    if isinstance(element, RawDataElement) and is_deferred(element):
        value = file.read_at(element.value_tell + element.length - 8, 8)
    else:
        value = bytes(element.value or b"")[-8:]
    return int.from_bytes(value, "little") if len(value) == 8 else None
