"""Items of the sequences that searches know, as the events carry them."""

from functools import lru_cache
from io import BytesIO
from typing import Any

import structlog
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence

from imaging_services.domain.dicom.charset import charset_of
from imaging_services.domain.dicom.dictionary import implicit_vr
from imaging_services.domain.dicom.elements import SPECIFIC_CHARACTER_SET, guess_encoding
from imaging_services.domain.dicom.values import Decoding, decode_element

log = structlog.get_logger(__name__)

_ITEM_HEADER = 8
_LITTLE_ENDIAN_ITEM = b"\xfe\xff\x00\xe0"

ElementJson = dict[str, Any]


def element_json(tag: int, vr: str, raw: bytes | None, decoding: Decoding) -> ElementJson:
    """An element as the events carry it."""
    vr, values = decode_element(tag, vr, raw, decoding)
    entry: ElementJson = {"group": f"{tag >> 16:04X}", "element": f"{tag & 0xFFFF:04X}", "vr": vr, "value": None}
    if values:
        entry["value"] = values[0] or None
    if len(values) > 1:
        entry["values"] = values
    return entry


@lru_cache(maxsize=1024)
def items_json(raw: bytes, decoding: Decoding) -> list[list[ElementJson]]:
    """The elements of each item of a sequence, without those of sequences within; nothing when it cannot be read:
    searches then do not know it, and the stored bytes keep it. The instances of a series mostly have the same items."""
    little_endian = raw.startswith(_LITTLE_ENDIAN_ITEM)
    explicit = not guess_encoding(raw[_ITEM_HEADER : _ITEM_HEADER + 8]).implicit
    try:
        items = read_sequence(BytesIO(raw), not explicit, little_endian, len(raw), "iso8859")
        return [_item(item, decoding._replace(little_endian=little_endian)) for item in items]
    except Exception as error:  # noqa: BLE001 - pydicom raises errors of many kinds on broken bytes
        log.debug("items not read", error=type(error).__name__, length=len(raw))
        return []


def _item(item: Dataset, decoding: Decoding) -> list[ElementJson]:
    elements = [item.get_item(tag) for tag in sorted(item.keys())]
    raw = [one for one in elements if isinstance(one, RawDataElement)]
    charset = next((one.value for one in raw if int(one.tag) == SPECIFIC_CHARACTER_SET), None)
    if charset:
        decoding = decoding._replace(charset=charset_of(charset))
    found = [element_json(int(one.tag), one.VR or implicit_vr(int(one.tag)), one.value, decoding) for one in raw]
    return [one for one in found if one["vr"] != "SQ"]
