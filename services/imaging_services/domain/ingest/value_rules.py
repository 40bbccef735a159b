"""What PS3.5 section 6.2 asks of a value of each VR, told from its bytes."""

import re
from datetime import date

_FIXED = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "AT": 4, "FD": 8, "SV": 8, "UV": 8}
"""Bytes of one value."""
_SWAPPED = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}
_LONGEST = {"LO": 64, "SH": 16, "PN": 64, "ST": 1024, "LT": 10240}
"""Characters of a value, of a component group in PN."""
_PARAGRAPHS = frozenset({"ST", "LT", "UT"})
_TEXT = frozenset({"LO", "SH", "PN", "UC", *_PARAGRAPHS})

_CONTROL = re.compile(rb"[\x00-\x1a\x1c-\x1f\x7f]")  # all but ESC, which changes the character set
_CONTROL_IN_PARAGRAPHS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_PATTERNS = {
    "AE": re.compile(rb"[\x20-\x5b\x5d-\x7e]{1,16}"),
    "AS": re.compile(rb"[0-9]{3}[DWMY]"),
    "CS": re.compile(rb"[A-Z0-9 _]{1,16}"),
    "DA": re.compile(rb"[0-9]{8}"),
    "DS": re.compile(rb"(?=.{1,16}$) *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *"),
    "DT": re.compile(
        rb"[0-9]{4}((0[1-9]|1[0-2])((0[1-9]|[12][0-9]|3[01])(([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)"
        rb"(\.[0-9]{1,6})?)?)?)?)?)?([+-](0[0-9]|1[0-4])[0-5][0-9])? *"
    ),
    "IS": re.compile(rb"(?=.{1,12}$) *[+-]?[0-9]+ *"),
    "TM": re.compile(rb"([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)(\.[0-9]{1,6})?)?)? *"),
    "UI": re.compile(rb"(?=.{1,64}$)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*"),
}
_SINGLE_BYTE = re.compile(rb"ISO_IR (100|101|109|110|144|127|126|138|148|166|203|6)?")
_UTF_8 = b"ISO_IR 192"


def broken_rule(vr: str, raw: bytes, character_set: bytes) -> str | None:
    """The first rule that a value breaks, in at most 64 characters, or None. ``character_set`` is the data set's
    SpecificCharacterSet, empty when it has none."""
    if len(raw) % 2:
        return f"odd length {len(raw)}"
    size = _FIXED.get(vr) or _SWAPPED.get(vr)
    if size is not None:
        return f"length {len(raw)} is no multiple of {size}" if len(raw) % size else None
    if vr in _PATTERNS:
        return _formatted(vr, raw)
    return _text(vr, raw, character_set) if vr in _TEXT else None


def _formatted(vr: str, raw: bytes) -> str | None:
    if vr == "UI" and raw.endswith(b" "):
        return "padded with a space, not NUL"
    if raw.endswith(b"\x00") and vr != "UI":
        return "padded with NUL, not a space"
    value = raw[:-1] if vr == "UI" and raw.endswith(b"\x00") else raw
    if not value.strip(b" "):
        return None
    for one in value.split(b"\\"):
        one = one.rstrip(b" ") if vr in ("CS", "AE", "DA", "AS") else one
        if one and not _PATTERNS[vr].fullmatch(one):
            return f"a value is not {vr} as PS3.5 has it"
        if vr == "DA" and one and not _is_date(one):
            return "a value is no date"
        if vr == "IS" and one and not -(2**31) <= int(one) < 2**31:
            return "a value is beyond IS"
    return None


def _is_date(value: bytes) -> bool:
    try:
        date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return False
    return True


def _text(vr: str, raw: bytes, character_set: bytes) -> str | None:
    if raw.endswith(b"\x00"):
        return "padded with NUL, not a space"
    if (_CONTROL_IN_PARAGRAPHS if vr in _PARAGRAPHS else _CONTROL).search(raw):
        return "control characters"
    if not character_set and not raw.isascii():
        return "not ASCII, and no SpecificCharacterSet"
    if character_set == _UTF_8:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            return "not UTF-8, as SpecificCharacterSet says"
    elif not character_set or _SINGLE_BYTE.fullmatch(character_set):
        text = raw.decode("latin-1")
    else:
        return None  # characters of several bytes: only decoding could count them
    return _too_long(vr, text)


def _too_long(vr: str, text: str) -> str | None:
    limit = _LONGEST.get(vr)
    if limit is None or len(text) <= limit:
        return None
    values = [text] if vr in _PARAGRAPHS else text.split("\\")
    if vr == "PN":
        values = [group for value in values for group in value.split("=")]
    longest = max(len(value.strip(" ")) for value in values)
    return f"{longest} characters, {vr} has {limit}" if longest > limit else None
