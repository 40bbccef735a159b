"""Raw values of data elements as text (PS3.5 section 6.2), for events and the manifest."""

import struct
from collections.abc import Callable
from typing import NamedTuple

from imaging_services.domain.dicom.charset import Charset, charset_of, decode
from imaging_services.domain.dicom.dictionary import definite_vr, implicit_vr
from imaging_services.domain.dicom.elements import PIXEL_REPRESENTATION, SPECIFIC_CHARACTER_SET, Header

_NUMBERS = {
    "US": ("H", 2),
    "SS": ("h", 2),
    "UL": ("L", 4),
    "SL": ("l", 4),
    "UV": ("Q", 8),
    "SV": ("q", 8),
    "FL": ("f", 4),
    "FD": ("d", 8),
    "AT": ("HH", 4),
}
_ASCII = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})
_TEXT = frozenset({"LO", "PN", "SH", "UC"})
_PARAGRAPHS = frozenset({"LT", "ST", "UT", "UR"})
_PN_DELIMITERS = b"\\^="

Values = tuple[str, ...]


def decoding_of(header: Header) -> "Decoding":
    """How the values of this header are to be read."""
    raw = header.raw(PIXEL_REPRESENTATION) or b""
    return Decoding(
        charset=charset_of(header.raw(SPECIFIC_CHARACTER_SET) or b""),
        signed=int.from_bytes(raw, "little" if header.little_endian else "big") == 1,
        little_endian=header.little_endian,
    )


class Decoding(NamedTuple):
    """What the values of a data set depend on beside themselves; ``signed`` is Pixel Representation."""

    charset: Charset
    signed: bool
    little_endian: bool


def decode_element(tag: int, vr: str, raw: bytes | None, decoding: Decoding) -> tuple[str, Values]:
    """VR and values of an element; the values are empty for sequences, binary and empty elements.

    A public element that was sent as UN has the dictionary's VR. NUL characters are left out, since neither JSON
    consumers nor PostgreSQL take them.
    """
    if vr == "UN" or " " in vr:
        vr = definite_vr(implicit_vr(tag) if vr == "UN" else vr, signed=decoding.signed)
    return vr, text_values(vr, raw, decoding.charset, little_endian=decoding.little_endian) if raw else ()


def text_values(vr: str, raw: bytes, charset: Charset, *, little_endian: bool = True) -> Values:
    """The values of one element as text; empty for binary VRs and for nothing but padding."""
    if vr in _ASCII:
        return _split(decode(raw, charset))
    if vr in _TEXT:
        return _split(decode(raw, charset, _PN_DELIMITERS) if vr == "PN" else decode(raw, charset))
    if vr in _PARAGRAPHS:
        text = decode(raw, charset).replace("\x00", "").rstrip(" ")
        return (text,) if text else ()
    if vr in _NUMBERS:
        return _numbers(vr, raw, "<" if little_endian else ">")
    return ()


def _split(text: str) -> Values:
    if "\x00" in text:
        text = text.replace("\x00", "")
    if "\\" not in text:
        text = text.strip(" ")
        return (text,) if text else ()
    values = tuple(value.strip(" ") for value in text.split("\\"))
    return values if any(values) else ()


def _numbers(vr: str, raw: bytes, order: str) -> Values:
    code, width = _NUMBERS[vr]
    count = len(raw) // width
    numbers = struct.unpack_from(f"{order}{code * count}", raw)
    if vr == "AT":
        return tuple(f"{group:04X}{element:04X}" for group, element in zip(numbers[::2], numbers[1::2], strict=True))
    return tuple(map(_FORMATS.get(vr, str), numbers))


def _single(number: float) -> str:
    """The shortest text that gives the same 32-bit number again."""
    for digits in (6, 7, 8):
        text = f"{number:.{digits}g}"
        if struct.pack("<f", float(text)) == struct.pack("<f", number):
            return text
    return f"{number:.9g}"


_FORMATS: dict[str, Callable[[float], str]] = {"FL": _single, "FD": repr}
