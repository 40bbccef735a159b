"""The header of one instance as the study header document holds it: elements of even groups before the pixel data,
each value as escaped text, or only named when it is too long."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import structlog
from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue

from imaging_services.domain.dicom.charset import Charset, charset_of
from imaging_services.domain.dicom.header import Element, is_deferred, load_deferred, raw_elements, read_header
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.errors import NotDicom
from imaging_services.domain.streaming.attribute_text import (
    KNOWN_VRS,
    LONGEST_VALUE,
    PIXEL_DATA,
    HeaderAttribute,
    element_xml,
    text,
    written_vr,
)
from imaging_services.domain.streaming.header_scan import Odd, scan_header
from imaging_services.domain.streaming.text import value_xml

log = structlog.get_logger(__name__)

_FORMAT = 1
_FORMAT_MARK = b"[%d," % _FORMAT
_SPECIFIC_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103
_HEADER_BYTES = 256 * 1024
_PIXEL_DATA_HEAD = 12  # tag, VR and length


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """``attributes`` in ascending order of tags; ``source_ae_title`` is (0002,0016), empty when the file has none."""

    source_ae_title: str
    attributes: tuple[HeaderAttribute, ...]

    def packed(self) -> bytes:
        """As kept for the next document."""
        columns = list(zip(*self.attributes, strict=True))
        return zlib.compress(orjson.dumps([_FORMAT, self.source_ae_title, columns]), 6)


def is_packed(content: bytes) -> bool:
    """True when ``unpacked`` takes it; another version of this product may have made it differently."""
    try:
        return zlib.decompressobj().decompress(content, len(_FORMAT_MARK)) == _FORMAT_MARK
    except zlib.error:
        return False


def unpacked(content: bytes) -> InstanceHeader:
    """What ``InstanceHeader.packed`` made."""
    _, source, columns = orjson.loads(zlib.decompress(content))
    return InstanceHeader(source, tuple(zip(*columns, strict=True)))


def read_instance_header(file: RangeFile, pixel_data_offset: int | None = None) -> InstanceHeader:
    """Read a stored file up to its pixel data, which begins at ``pixel_data_offset`` where that is known.

    Raises ``PermanentError`` when it cannot be read as DICOM.
    """
    known = _HEADER_BYTES if pixel_data_offset is None else pixel_data_offset + _PIXEL_DATA_HEAD
    try:
        return InstanceHeader(*scan_header(file.read_at(0, min(known, file.size), ahead=0)))
    except (Odd, NotDicom):
        return read_awkward_header(file)


def read_awkward_header(file: RangeFile) -> InstanceHeader:
    """The same through pydicom, which copes with more than the Standard allows."""
    header = read_header(file)
    source = str(header.file_meta.get("SourceApplicationEntityTitle") or "").strip()
    return InstanceHeader(source, tuple(_Reader(file).attributes(header, charset_of(b""), signed=False)))


class _Reader:
    def __init__(self, file: RangeFile) -> None:
        self._file = file

    def attributes(self, dataset: Dataset, charset: Charset, *, signed: bool) -> Iterator[HeaderAttribute]:
        """Of a data set or an item; ``charset`` and ``signed`` are those around an item that has none of its own."""
        charset = _charset(dataset, charset)
        signed = _signed(dataset, signed)
        for element in raw_elements(dataset):
            tag = int(element.tag)
            group = tag >> 16
            if tag >= PIXEL_DATA:
                return
            if tag & 0xFFFF == 0 or group % 2 or group == 0x0002:
                continue  # group lengths would be wrong here; private elements and file meta are left out
            vr = written_vr(tag, str(element.VR) if element.VR else None, signed=signed)
            if vr in KNOWN_VRS:
                yield f"{tag:08X}", vr, self._xml(dataset, element, vr, charset, signed=signed)

    def _xml(self, dataset: Dataset, element: Element, vr: str, charset: Charset, *, signed: bool) -> str | None:
        if vr == "SQ":
            return self._items(dataset, element, charset, signed=signed)
        if not isinstance(element, RawDataElement):
            return value_xml(_python_text(element))
        if is_deferred(element) or len(element.value or b"") > LONGEST_VALUE:
            return None
        return value_xml(text(vr, element.value or b"", charset, little_endian=element.is_little_endian))

    def _items(self, dataset: Dataset, element: Element, charset: Charset, *, signed: bool) -> str | None:
        try:
            if isinstance(element, RawDataElement) and is_deferred(element):
                load_deferred(dataset, element, self._file)
            items = dataset[element.tag].value
            return "".join(f"<Item>{self._item(item, charset, signed=signed)}</Item>" for item in items)
        except Exception as error:  # noqa: BLE001 - one unreadable sequence must not hide all others
            log.debug("sequence left out", tag=f"{element.tag:08X}", error=type(error).__name__)
            return None

    def _item(self, item: Dataset, charset: Charset, *, signed: bool) -> str:
        return "".join(map(element_xml, self.attributes(item, charset, signed=signed)))


def _python_text(element: DataElement) -> str:
    """Of an element that was decoded while the file was read, as Specific Character Set is."""
    value = element.value
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return "\\".join("" if one is None else str(one) for one in values).rstrip(" \0")


def _charset(dataset: Dataset, inherited: Charset) -> Charset:
    """A data set's own character set, else that of the data set around it (PS3.5 section 6.1.2.3)."""
    if _SPECIFIC_CHARACTER_SET not in dataset:
        return inherited
    element = dataset.get_item(_SPECIFIC_CHARACTER_SET, keep_deferred=True)
    if isinstance(element, RawDataElement):
        return charset_of(element.value or b"")
    return charset_of(_python_text(element).encode("latin-1", "replace")) if element is not None else inherited


def _signed(dataset: Dataset, inherited: bool) -> bool:
    element = dataset.get_item(_PIXEL_REPRESENTATION, keep_deferred=True) if _PIXEL_REPRESENTATION in dataset else None
    if not isinstance(element, RawDataElement) or not element.value:
        return inherited
    return int.from_bytes(element.value, "little" if element.is_little_endian else "big") == 1
