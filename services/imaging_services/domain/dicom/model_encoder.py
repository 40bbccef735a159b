"""Encoding the DICOM JSON Model (PS3.18 annex F) as a data set in Explicit VR Little Endian.

Values that come apart from the model stay references among the bytes: whoever writes the data set streams them.
"""

import base64
import binascii
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from imaging_services.domain.dicom.dictionary import definite_vr, implicit_vr
from imaging_services.domain.dicom.sequences import LONG_VRS, SHORT_VRS, UNDEFINED_LENGTH
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.query import DicomJson

MAX_DEPTH = 100
"""Deepest nesting of sequences."""

SPECIFIC_CHARACTER_SET = "00080005"
PIXEL_DATA = "7FE00010"
_UTF_8 = {"vr": "CS", "Value": ["ISO_IR 192"]}
_NUMBERS = {
    "US": "<H", "SS": "<h", "UL": "<L", "SL": "<l", "UV": "<Q", "SV": "<q", "FL": "<f", "FD": "<d",
}  # fmt: skip
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_SINGLE = frozenset({"LT", "ST", "UT", "UR"})
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_DIGITS = frozenset("0123456789ABCDEF")
_KNOWN = LONG_VRS | SHORT_VRS
_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED_LENGTH)
_ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes that lie elsewhere: ``length`` of them from ``start`` on."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class BulkValue:
    """A value that came apart from the model: what is put together to make it, for ``encapsulated`` pixel data one
    fragment each."""

    spans: Sequence[Span]
    encapsulated: bool = False


Piece = bytes | Span
Resolve = Callable[[str], BulkValue]


def encode_model(model: DicomJson, resolve: Resolve) -> list[Piece]:
    """The data set. Text is in UTF-8 unless all of it is ASCII; ``resolve`` finds the value of a BulkDataURI.

    Group 0000 and 0002 and group lengths are left out. Raises ``InvalidInput`` that names the attribute, and what
    ``resolve`` raises.
    """
    try:
        utf_8 = not orjson.dumps(model).isascii()
    except TypeError as error:  # orjson's depth, numbers beyond 64 bits, keys that are no text
        raise InvalidInput(f"the metadata cannot be encoded: {error}") from None
    if utf_8:
        model = {**model, SPECIFIC_CHARACTER_SET: _UTF_8}
    return _joined(_attributes(model, resolve, utf_8, 0))


def is_tag(text: str) -> bool:
    """True for eight upper-case hexadecimal digits."""
    return len(text) == 8 and set(text) <= _DIGITS


def is_encodable(tag: str) -> bool:
    """False for elements that have no place in a data set: command and file meta elements, group lengths."""
    return tag[:4] not in ("0000", "0002") and tag[4:] != "0000"


def _joined(pieces: Iterator[Piece]) -> list[Piece]:
    """Neighbouring bytes as one piece."""
    result: list[Piece] = []
    pending: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            pending.append(piece)
            continue
        result += [b"".join(pending), piece]
        pending = []
    return [*result, b"".join(pending)]


def _attributes(model: Mapping[str, Any], resolve: Resolve, utf_8: bool, depth: int) -> Iterator[Piece]:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"sequences nested deeper than {MAX_DEPTH}")
    for tag in sorted(model):
        if not is_tag(tag):
            raise InvalidInput(f"{tag[:20]!r} is not a tag of eight upper-case hexadecimal digits")
        if is_encodable(tag):
            attribute = _UTF_8 if utf_8 and tag == SPECIFIC_CHARACTER_SET else model[tag]
            if not isinstance(attribute, dict):
                raise InvalidInput(f"attribute {tag} is no object")
            try:
                yield from _attribute(int(tag, 16), attribute, resolve, utf_8, depth)
            except (struct.error, TypeError, ValueError, OverflowError, binascii.Error) as error:
                raise InvalidInput(f"attribute {tag}: a value cannot be encoded ({type(error).__name__})") from None


def _attribute(tag: int, attribute: Mapping[str, Any], resolve: Resolve, utf_8: bool, depth: int) -> Iterator[Piece]:
    values = attribute.get("Value") or []
    if not isinstance(values, list):
        raise InvalidInput(f"attribute {tag:08X}: Value is no list")
    negative = any(isinstance(value, int) and value < 0 for value in values)
    vr = definite_vr(str(attribute.get("vr") or implicit_vr(tag))[:20], signed=negative)
    if vr.encode() not in _KNOWN:
        raise InvalidInput(f"attribute {tag:08X}: VR {vr!r} is not known")
    if "BulkDataURI" in attribute:
        yield from _bulk(tag, vr, resolve(str(attribute["BulkDataURI"])))
    elif vr == "SQ":
        yield _head(tag, "SQ", UNDEFINED_LENGTH)
        for item in values:
            if not isinstance(item, dict | None):
                raise TypeError("an item is no object")
            yield _ITEM
            yield from _attributes(item or {}, resolve, utf_8, depth + 1)
            yield _ITEM_END
        yield _SEQUENCE_END
    elif "InlineBinary" in attribute:
        yield from _element(tag, vr, base64.b64decode(attribute["InlineBinary"], validate=True))
    else:
        yield from _element(tag, vr, _encoded(vr, values))


def _bulk(tag: int, vr: str, value: BulkValue) -> Iterator[Piece]:
    if value.encapsulated:  # PS3.5 section A.4: an empty Basic Offset Table, then the fragments
        if f"{tag:08X}" != PIXEL_DATA:
            raise InvalidInput(f"attribute {tag:08X}: an image or a video is the value of Pixel Data only")
        yield _head(tag, "OB", UNDEFINED_LENGTH) + struct.pack("<HHL", 0xFFFE, 0xE000, 0)
        for span in value.spans:
            yield struct.pack("<HHL", 0xFFFE, 0xE000, span.length + span.length % 2)
            yield span
            yield bytes(span.length % 2)
        yield _SEQUENCE_END
        return
    length = sum(span.length for span in value.spans)
    if length >= UNDEFINED_LENGTH - 1:
        raise InvalidInput(f"attribute {tag:08X}: {length} bytes are too many for an element")
    yield _head(tag, vr, length + length % 2)
    yield from value.spans
    yield _padding(vr)[: length % 2]


def _element(tag: int, vr: str, value: bytes) -> tuple[bytes, bytes, bytes]:
    padding = _padding(vr)[: len(value) % 2]
    return _head(tag, vr, len(value) + len(padding)), value, padding


def _padding(vr: str) -> bytes:
    return b"\x00" if vr == "UI" or vr in _BINARY else b" "


def _head(tag: int, vr: str, length: int) -> bytes:
    """Tag, VR and length; what is too long for a VR of short length is UN (PS3.5 section 6.2.2 note 7)."""
    if vr.encode() in SHORT_VRS and length > 0xFFFF:
        vr = "UN"
    if vr.encode() in SHORT_VRS:
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), length)
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length)


def _encoded(vr: str, values: Sequence[Any]) -> bytes:
    if vr in _BINARY:
        if values:
            raise ValueError("binary values come inline or by URI")
        return b""
    if vr in _NUMBERS:
        kind = float if vr in ("FL", "FD") else _whole
        return b"".join(struct.pack(_NUMBERS[vr], kind(value or 0)) for value in values)
    if vr == "AT":
        return b"".join(struct.pack("<HH", int(value[:4], 16), int(value[4:], 16)) for value in values)
    if vr == "PN":
        return "\\".join(map(_person_name, values)).encode()
    texts = [_text(value) for value in values]
    return (texts[0] if vr in _SINGLE and texts else "\\".join(texts)).encode()


def _whole(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("a fraction, where the VR has whole numbers")
    return int(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (dict, list, bool)):
        raise TypeError("a value is neither text nor number")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _person_name(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, dict):
        raise TypeError("a person name is neither text nor an object")
    return "=".join(str(value.get(group) or "") for group in _NAME_GROUPS).rstrip("=")
