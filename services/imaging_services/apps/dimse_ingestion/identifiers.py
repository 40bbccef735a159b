"""Identifiers of C-FIND (PS3.4 section C.4.1.1): bytes ⇄ keys and values as text."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset

from imaging_services.domain.dicom.charset import charset_of
from imaging_services.domain.dicom.dictionary import implicit_vr
from imaging_services.domain.dicom.transfer_syntaxes import Encoding
from imaging_services.domain.dicom.values import Decoding, decode_element
from imaging_services.domain.errors import InvalidInput

SPECIFIC_CHARACTER_SET = 0x00080005
_UTF_8 = "ISO_IR 192"
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}
_DS_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an identifier; no values is universal matching, and so is a sequence."""

    tag: int
    vr: str
    values: tuple[str, ...] = ()


def decode_identifier(data: bytes, encoding: Encoding) -> list[Key]:
    """The keys in tag order, decoded by the identifier's Specific Character Set. Raises ``InvalidInput``."""
    try:
        data_set = read_dataset(BytesIO(data), encoding.implicit, encoding.little_endian, bytelength=len(data))
        items = [data_set.get_item(tag) for tag in sorted(data_set.keys())]
    except Exception as error:
        # pydicom raises errors of many kinds on broken bytes, none of them its own
        raise InvalidInput(f"the identifier cannot be read: {type(error).__name__}") from error
    raw = {int(item.tag): item for item in items if item is not None}
    charset = raw.get(SPECIFIC_CHARACTER_SET)
    decoding = Decoding(charset_of(_bytes(charset)), signed=False, little_endian=encoding.little_endian)
    return [_key(tag, item, decoding) for tag, item in raw.items() if tag & 0xFFFF]


def encode_identifier(keys: Iterable[Key], encoding: Encoding) -> bytes:
    """A response identifier; Specific Character Set is ISO_IR 192 (UTF-8) when a value is not ASCII."""
    found = {key.tag: key for key in keys}
    if not all(value.isascii() for key in found.values() for value in key.values):
        found[SPECIFIC_CHARACTER_SET] = Key(SPECIFIC_CHARACTER_SET, "CS", (_UTF_8,))
    return b"".join(_element(found[tag], encoding) for tag in sorted(found))


def json_values(element: dict[str, Any]) -> tuple[str, ...]:
    """The values of an element of the DICOM JSON Model (PS3.18 annex F) as text."""
    return tuple(_text(element["vr"], value) for value in element.get("Value", ()))


def _key(tag: int, item: Any, decoding: Decoding) -> Key:
    if not isinstance(item, RawDataElement):
        return Key(tag, str(item.VR))  # a sequence of undefined length
    vr = item.VR or implicit_vr(tag)
    if vr == "SQ":
        return Key(tag, vr)
    return Key(tag, *decode_element(tag, vr, item.value or None, decoding))


def _bytes(item: Any) -> bytes:
    return item.value or b"" if isinstance(item, RawDataElement) else b""


def _text(vr: str, value: Any) -> str:
    if vr == "PN":
        groups = [value.get(name, "") for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    text = repr(value) if isinstance(value, float) else str(value)
    return text if vr != "DS" or len(text) <= _DS_LENGTH else f"{float(text):.9g}"


def _element(key: Key, encoding: Encoding) -> bytes:
    order = "<" if encoding.little_endian else ">"
    value = _value(key, order)
    head = struct.pack(order + "HH", key.tag >> 16, key.tag & 0xFFFF)
    if encoding.implicit:
        return head + struct.pack(order + "L", len(value)) + value
    if key.vr in _LONG:
        return head + key.vr.encode() + struct.pack(order + "xxL", len(value)) + value
    value = value[:0xFFFE]
    return head + key.vr.encode() + struct.pack(order + "H", len(value)) + value


def _value(key: Key, order: str) -> bytes:
    code = _BINARY.get(key.vr)
    if code is not None:
        convert = float if code in "fd" else int
        return b"".join(struct.pack(order + code, convert(value)) for value in key.values)
    raw = "\\".join(key.values).encode()
    return raw + (b"\0" if key.vr == "UI" else b" ") * (len(raw) % 2)
