"""Identifiers of C-FIND (PS3.4 section C.4.1.1): bytes ⇄ keys and values as text."""

import asyncio
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from imaging_services.domain.dicom import charset_writer
from imaging_services.domain.dicom.charset import charset_of
from imaging_services.domain.dicom.dictionary import implicit_vr
from imaging_services.domain.dicom.transfer_syntaxes import Encoding
from imaging_services.domain.dicom.values import Decoding, decode_element
from imaging_services.domain.errors import InvalidInput

SPECIFIC_CHARACTER_SET = 0x00080005
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_DS_LENGTH = 16
_DEEPEST = 8
_ITEM = 0xFFFEE000
_ON_LOOP = 64 * 1024  # bytes, read within some milliseconds
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an identifier; no values is universal matching. A sequence has the keys of its ``items`` instead."""

    tag: int
    vr: str
    values: tuple[str, ...] = ()
    items: tuple[tuple["Key", ...], ...] = ()


Keys = tuple[Key, ...]


def decode_identifier(data: bytes, encoding: Encoding) -> list[Key]:
    """The keys in tag order, decoded by the identifier's Specific Character Set. Raises ``InvalidInput``."""
    try:
        data_set = read_dataset(BytesIO(data), encoding.implicit, encoding.little_endian, bytelength=len(data))
        return _keys(data_set, Decoding(charset_of(b""), signed=False, little_endian=encoding.little_endian), 0)
    except Exception as error:
        # pydicom raises errors of many kinds on broken bytes, none of them its own
        raise InvalidInput(f"the identifier cannot be read: {type(error).__name__}") from error


async def off_loop(data: bytes, work: Callable[[], _Result]) -> _Result:
    """Do what this identifier needs: in a thread when it is long, as millions of bytes take seconds to be read."""
    return await asyncio.to_thread(work) if len(data) > _ON_LOOP else work()


def encode_identifier(keys: Iterable[Key], encoding: Encoding, charset: tuple[str, ...] = ()) -> bytes:
    """A response identifier. Text is in the character set that the request was in, when that can hold it, else in
    UTF-8; Specific Character Set is there when a value is not ASCII."""
    found = [key for key in keys if key.tag != SPECIFIC_CHARACTER_SET]
    if all(map(_is_ascii, found)):
        return _data_set(found, encoding, ())
    requested = charset if charset_writer.writable(charset) else ()
    for terms in filter(None, (requested, (charset_writer.UTF_8,))):
        try:
            return _data_set([Key(SPECIFIC_CHARACTER_SET, "CS", terms), *found], encoding, terms)
        except UnicodeError:
            continue
    raise InvalidInput("a value cannot be encoded in UTF-8")


def json_values(element: dict[str, Any]) -> tuple[str, ...]:
    """The values of an element of the DICOM JSON Model (PS3.18 annex F) as text."""
    return tuple(_text(element["vr"], value) for value in element.get("Value", ()))


def _keys(data_set: Dataset, decoding: Decoding, depth: int) -> list[Key]:
    if depth > _DEEPEST:
        raise InvalidInput("sequences are nested too deep")
    items = [data_set.get_item(tag) for tag in sorted(data_set.keys())]
    raw = {int(item.tag): item for item in items if item is not None}
    charset = raw.get(SPECIFIC_CHARACTER_SET)
    if isinstance(charset, RawDataElement) and charset.value:
        decoding = decoding._replace(charset=charset_of(charset.value))
    return [_key(tag, item, data_set, decoding, depth) for tag, item in raw.items() if tag & 0xFFFF]


def _key(tag: int, item: Any, data_set: Dataset, decoding: Decoding, depth: int) -> Key:
    vr = item.VR or implicit_vr(tag)
    if vr == "SQ":
        members = (_keys(one, decoding, depth + 1) for one in data_set[tag].value)
        return Key(tag, vr, items=tuple(tuple(keys) for keys in members if keys))
    return Key(tag, *decode_element(tag, vr, item.value or None, decoding))


def _is_ascii(key: Key) -> bool:
    return all(value.isascii() for value in key.values) and all(_is_ascii(one) for item in key.items for one in item)


def _text(vr: str, value: Any) -> str:
    if vr == "PN":
        groups = [value.get(name, "") for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    text = repr(value) if isinstance(value, float) else str(value)
    return text if vr != "DS" or len(text) <= _DS_LENGTH else f"{float(text):.9g}"


def _data_set(keys: Iterable[Key], encoding: Encoding, terms: tuple[str, ...]) -> bytes:
    """Raises ``UnicodeError`` when the character set cannot hold a value."""
    by_tag = {key.tag: key for key in keys}
    return b"".join(_element(by_tag[tag], encoding, terms) for tag in sorted(by_tag))


def _element(key: Key, encoding: Encoding, terms: tuple[str, ...]) -> bytes:
    order = "<" if encoding.little_endian else ">"
    value = _items(key, encoding, terms, order) if key.items else _value(key, order, terms)
    head = _tag(key.tag, order)
    if encoding.implicit:
        return head + struct.pack(order + "L", len(value)) + value
    if key.vr in _LONG:
        return head + key.vr.encode() + struct.pack(order + "xxL", len(value)) + value
    value = value[:0xFFFE]
    return head + key.vr.encode() + struct.pack(order + "H", len(value)) + value


def _items(key: Key, encoding: Encoding, terms: tuple[str, ...], order: str) -> bytes:
    items = [_data_set(item, encoding, terms) for item in key.items]
    return b"".join(_tag(_ITEM, order) + struct.pack(order + "L", len(item)) + item for item in items)


def _tag(tag: int, order: str) -> bytes:
    return struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)


def _value(key: Key, order: str, terms: tuple[str, ...]) -> bytes:
    code = _BINARY.get(key.vr)
    if code is not None:
        convert = float if code in "fd" else int
        return b"".join(struct.pack(order + code, convert(value)) for value in key.values)
    text = "\\".join(key.values)
    raw = charset_writer.encode(text, key.vr, terms) if terms and key.vr in _TEXT else text.encode()
    if raw is None:
        raise UnicodeError(key.vr)
    return raw + (b"\0" if key.vr == "UI" else b" ") * (len(raw) % 2)
