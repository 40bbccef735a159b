"""Values of the DICOM JSON Model from the bytes of a data element (PS3.18 section F.2, PS3.5 section 6.2).

Written for speed and for awkward files: nothing is validated, what cannot be read as its VR says becomes text.
"""

import math
import struct
from collections.abc import Callable
from typing import Any

from imaging_services.domain.dicom.charset import Charset, decode

BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_ASCII = frozenset({"AE", "AS", "CS", "DA", "DT", "TM", "UI"})
_NUMBER_TEXT = frozenset({"DS", "IS"})
_TEXT = frozenset({"LO", "SH", "UC"})
_LONG_TEXT = frozenset({"LT", "ST", "UT"})
_STRUCT = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}

_NAME_DELIMITERS = b"\\^="

UTF_8 = "ISO_IR 192"
"""The only Specific Character Set of the JSON and XML models (PS3.18 section F.2.1)."""


def json_values(vr: str, value: bytes, little_endian: bool, charset: Charset) -> list[Any] | None:
    """The ``Value`` array; None when the VR needs something else (binary, sequence, unknown)."""
    decoder = _DECODERS.get(vr)
    return None if decoder is None else decoder(vr, value, little_endian, charset)


def word_size(vr: str) -> int:
    """Bytes of one number of a binary VR: what is swapped between byte orders (PS3.5 section 7.3)."""
    if vr in ("OW", "AT"):
        return 2
    wide = {"OL": 4, "OF": 4, "OD": 8, "OV": 8}.get(vr)
    return wide or (struct.calcsize(_STRUCT[vr]) if vr in _STRUCT else 1)


def _ascii(_vr: str, value: bytes, _little: bool, charset: Charset) -> list[Any]:
    """Only ASCII by the Standard; what senders put there beyond it is text in their character set."""
    return [item.strip(" \0") or None for item in decode(value, charset).split("\\")]


def _number_text(vr: str, value: bytes, _little: bool, _charset: Charset) -> list[Any]:
    return [_number(vr, item.strip(" \0")) for item in value.decode("latin-1").split("\\")]


def _number(vr: str, text: str) -> int | float | str | None:
    if not text:
        return None
    try:
        number = int(text) if vr == "IS" else float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) and "_" not in text else text


def _text(_vr: str, value: bytes, _little: bool, charset: Charset) -> list[Any]:
    text = decode(value, charset)
    return [item.strip(" \0") or None for item in text.split("\\")]


def _long_text(_vr: str, value: bytes, _little: bool, charset: Charset) -> list[Any]:
    return [decode(value, charset).rstrip(" \0")]


def _uri(_vr: str, value: bytes, _little: bool, _charset: Charset) -> list[Any]:
    return [value.decode("latin-1").rstrip(" \0")]


def _person_name(_vr: str, value: bytes, _little: bool, charset: Charset) -> list[Any]:
    text = decode(value, charset, _NAME_DELIMITERS)
    return [_name_groups(item.strip(" \0")) for item in text.split("\\")]


def _name_groups(text: str) -> dict[str, str] | None:
    """The component groups of one name that are not empty (PS3.5 section 6.2.1.1)."""
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
    return {key: group.rstrip(" ") for key, group in groups if group.strip(" ")} or None


def _numbers(vr: str, value: bytes, little: bool, _charset: Charset) -> list[Any]:
    code = _STRUCT[vr]
    count = len(value) // struct.calcsize(code)
    numbers = struct.unpack_from(f"{'<' if little else '>'}{count}{code}", value)
    return [_finite(number) for number in numbers] if vr in ("FL", "FD") else list(numbers)


def _finite(number: float) -> float | str:
    """JSON has no number for these (PS3.18 section F.2.2)."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")


def _tags(_vr: str, value: bytes, little: bool, _charset: Charset) -> list[Any]:
    words = struct.unpack_from(f"{'<' if little else '>'}{len(value) // 4 * 2}H", value)
    return [f"{group:04X}{element:04X}" for group, element in zip(words[::2], words[1::2], strict=True)]


_Decoder = Callable[[str, bytes, bool, Charset], list[Any]]
_DECODERS: dict[str, _Decoder] = {
    **dict.fromkeys(_ASCII, _ascii),
    **dict.fromkeys(_NUMBER_TEXT, _number_text),
    **dict.fromkeys(_TEXT, _text),
    **dict.fromkeys(_LONG_TEXT, _long_text),
    **dict.fromkeys(_STRUCT, _numbers),
    "UR": _uri,
    "PN": _person_name,
    "AT": _tags,
}
