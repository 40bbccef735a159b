"""Values of elements as the study header document writes them."""

from imaging_services.domain.dicom.byte_order import swapped
from imaging_services.domain.dicom.charset import Charset, decode
from imaging_services.domain.dicom.dictionary import definite_vr, implicit_vr
from imaging_services.domain.dicom.json_values import word_size
from imaging_services.domain.dicom.values import text_values

LONGEST_VALUE = 4096
"""Longer values, in bytes as encoded, are excluded: a client asks for them when it needs them."""

PIXEL_DATA = 0x7FE00010
BINARY_VRS = frozenset({"OB", "OW", "OF", "OD"})
"""Never part of what instances have in common."""

_ASCII = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UT"})
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "FL", "FD", "AT", "OF", "OD"})
KNOWN_VRS = _ASCII | _TEXT | _NUMBERS | BINARY_VRS | {"SQ"}
_NEWER_TEXT = {"UC": "UT", "UR": "UT"}
_NOT_NUMBERS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

HeaderAttribute = tuple[str, str, str | None]
"""One element: tag as eight hex digits, VR, and what stands between its XML tags; None when the value is excluded."""


def element_xml(attribute: HeaderAttribute) -> str:
    """The XML element of one attribute."""
    tag, vr, xml = attribute
    if xml is None:
        return f'<ExcludedAttribute Tag="{tag}" VR="{vr}" />'
    return f'<Attribute Tag="{tag}" VR="{vr}">{xml}</Attribute>' if xml else f'<Attribute Tag="{tag}" VR="{vr}" />'


def written_vr(tag: int, encoded: str | None, *, signed: bool | None) -> str | None:
    """The VR as encoded; of the dictionary for Implicit VR (None) and UN. VRs that are younger than the format, which
    its readers may not know, become UT where they are text. None when it depends on Pixel Representation and that is
    not known."""
    vr = implicit_vr(tag) if encoded in (None, "UN") else encoded
    if vr is not None and " " in vr:
        if signed is None:
            return None
        vr = definite_vr(vr, signed=signed)
    return _NEWER_TEXT.get(vr, vr) if vr else vr


def text(vr: str, value: bytes, charset: Charset, *, little_endian: bool) -> str:
    """A value as text: several joined by a backslash, numbers decimal, AT without leading zeros, each byte a number."""
    if vr in _ASCII:
        return value.decode("latin-1").rstrip(" \0")
    if vr in _TEXT:
        return (decode(value, charset, b"\\^=") if vr == "PN" else decode(value, charset)).rstrip(" \0")
    if vr in ("OB", "OW"):
        size = 1 if little_endian or len(value) % word_size(vr) else word_size(vr)
        return "\\".join(map(str, swapped(value, size)))
    numbers = text_values({"OF": "FL", "OD": "FD"}.get(vr, vr), value, charset, little_endian=little_endian)
    if vr == "AT":
        return "\\".join(f"{int(number, 16):X}" for number in numbers)
    return "\\".join(_NOT_NUMBERS.get(number, number) for number in numbers)
