"""A header as an instance of the DICOM JSON Model (PS3.18 annex F)."""

import base64
from collections.abc import Callable
from typing import Any

import structlog
from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from imaging_services.domain.dicom.byte_order import swapped
from imaging_services.domain.dicom.charset import Charset, charset_of
from imaging_services.domain.dicom.header import Element, effective_vr, is_deferred, load_deferred, raw_elements
from imaging_services.domain.dicom.json_values import BINARY_VRS, UTF_8, json_values, word_size
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.manifest.query import DicomJson

log = structlog.get_logger(__name__)

INLINE_BYTES = 1024
"""Longer binary values become a BulkDataURI."""

BulkPath = tuple[int, ...]
"""Where a value lies: tag, then for each level of nesting item number (from 1) and tag."""

BulkUri = Callable[[BulkPath], str]

_SPECIFIC_CHARACTER_SET = 0x00080005


def format_path(path: BulkPath) -> str:
    """As in a URL: ``54000100/1/54001010``."""
    return "/".join(f"{part:08X}" if index % 2 == 0 else str(part) for index, part in enumerate(path))


class JsonModel:
    """Converts one header; ``bulk_uri`` names the resource that serves a value left out."""

    def __init__(self, file: RangeFile, bulk_uri: BulkUri) -> None:
        self._file = file
        self._bulk_uri = bulk_uri

    def convert(self, dataset: Dataset, path: BulkPath = (), charset: Charset | None = None) -> DicomJson:
        """All elements but group lengths and file meta, which the model leaves out (PS3.18 section F.2.2)."""
        charset = _charset(dataset, charset)
        result: DicomJson = {}
        for element in raw_elements(dataset):
            if element.tag & 0xFFFF and element.tag >> 16 != 0x0002:
                result[f"{element.tag:08X}"] = self._element(dataset, element, path, charset)
        if f"{_SPECIFIC_CHARACTER_SET:08X}" in result:
            result[f"{_SPECIFIC_CHARACTER_SET:08X}"] = {"vr": "CS", "Value": [UTF_8]}
        return result

    def _element(self, dataset: Dataset, element: Element, path: BulkPath, charset: Charset) -> dict[str, Any]:
        vr = effective_vr(element)
        if isinstance(element, RawDataElement) and is_deferred(element):
            if vr != "SQ":
                return {"vr": vr or "UN", "BulkDataURI": self._bulk_uri((*path, element.tag))}
            element = load_deferred(dataset, element, self._file)
        if isinstance(element, RawDataElement) and vr is not None and isinstance(element.value, bytes | None):
            values = json_values(vr, element.value or b"", element.is_little_endian, charset)
            if values is not None:
                return {"vr": vr, "Value": values} if element.value and values != [None] else {"vr": vr}
            if vr in BINARY_VRS and vr != "UN":
                value = element.value or b""
                swap = 1 if element.is_little_endian or len(value) % word_size(vr) else word_size(vr)
                return self._binary(vr, swapped(value, swap), (*path, element.tag))
        return self._decoded(dataset, element, path, charset)

    def _decoded(self, dataset: Dataset, element: Element, path: BulkPath, charset: Charset) -> dict[str, Any]:
        """The slow way, through pydicom: sequences, binary values, and VRs that depend on other elements."""
        here = (*path, int(element.tag))
        try:
            decoded = dataset[element.tag]
        except Exception as error:  # noqa: BLE001 - one unreadable element must not hide all others
            log.debug("element kept undecoded", tag=f"{element.tag:08X}", error=type(error).__name__)
            return self._binary("UN", element.value, here)
        if decoded.VR == "SQ":
            items = [self.convert(item, (*here, number), charset) for number, item in enumerate(decoded.value, 1)]
            return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        if decoded.VR in BINARY_VRS or len(decoded.VR) != 2 or isinstance(decoded.value, bytes):
            return self._binary(decoded.VR if len(decoded.VR) == 2 else "OB", decoded.value, here)
        return _from_python(decoded)

    def _binary(self, vr: str, value: Any, path: BulkPath) -> dict[str, Any]:
        if not value:
            return {"vr": vr}
        if not isinstance(value, bytes) or len(value) > INLINE_BYTES:
            return {"vr": vr, "BulkDataURI": self._bulk_uri(path)}
        return {"vr": vr, "InlineBinary": base64.b64encode(value).decode("ascii")}


def _from_python(element: DataElement) -> dict[str, Any]:
    if element.is_empty:
        return {"vr": element.VR}
    values = list(element.value) if isinstance(element.value, MultiValue | list) else [element.value]
    return {"vr": element.VR, "Value": [_plain(element.VR, value) for value in values]}


def _plain(vr: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if isinstance(value, PersonName):
        return json_values("PN", str(value).encode("utf-8"), True, ("utf-8",))[0]  # type: ignore[index]
    if vr == "AT":
        return f"{int(value):08X}"
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


def _charset(dataset: Dataset, inherited: Charset | None) -> Charset:
    """A data set's own character set, else that of the data set around it (PS3.5 section 6.1.2.3)."""
    if _SPECIFIC_CHARACTER_SET not in dataset:
        return inherited or charset_of(b"")
    element = dataset.get_item(_SPECIFIC_CHARACTER_SET, keep_deferred=True)
    value = element.value if element is not None else None
    if isinstance(value, bytes):
        return charset_of(value)
    terms = [value] if isinstance(value, str) else list(value or [])
    return charset_of("\\".join(terms).encode("latin-1", "replace"))
