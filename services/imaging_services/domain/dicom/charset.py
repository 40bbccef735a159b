"""Decoding text by Specific Character Set (0008,0005) (PS3.5 section 6.1, PS3.3 section C.12.1.1.2).

Never fails and never loses a byte: what the declared character set cannot decode is read as UTF-8, and what is not
UTF-8 as ISO 8859-1, which gives every byte a character.
"""

import re
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, STAND_ALONE_ENCODINGS, handled_encodings, python_encoding

_ESCAPE = 0x1B
_FRAGMENTS = re.compile(rb"(^[^\x1b]+|\x1b[^\x1b]*)")
_ASCII_NAMES = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})
_DEFAULT = "utf-8"  # the default repertoire is ASCII; who sends more without saying so mostly sends UTF-8

Charset = tuple[str, ...]
"""Python codecs, the first for text before any escape sequence."""


@lru_cache(maxsize=256)
def charset_of(value: bytes) -> Charset:
    """The codecs that a raw value of Specific Character Set names; unknown names count as the default repertoire."""
    names = [_corrected(name.strip(" \x00")) for name in value.decode("latin-1").split("\\")]
    if names[0] in STAND_ALONE_ENCODINGS:
        return (python_encoding[names[0]],)
    return tuple(_codec(name) for name in names if name not in STAND_ALONE_ENCODINGS)


def _codec(name: str) -> str:
    return _DEFAULT if name in _ASCII_NAMES else python_encoding.get(name, _DEFAULT)


def _corrected(name: str) -> str:
    """Common misspellings: ``ISO-IR 100``, ``ISO_2022_IR_6``, lower case."""
    found = re.fullmatch(r"ISO.?(2022.?)?IR.?(\d+)", name, re.IGNORECASE)
    if not found:
        return name.upper()
    return f"{'ISO 2022 IR' if found[1] else 'ISO_IR'} {found[2]}"


def decode(value: bytes, charset: Charset, delimiters: bytes = b"\\\r\n\f\t") -> str:
    """Text of a value. ``delimiters`` reset code extensions (PS3.5 section 6.1.2.5.3)."""
    if value.isascii() and _ESCAPE not in value:
        return value.decode("ascii")
    try:
        if _ESCAPE not in value:
            return value.decode(charset[0])
        return "".join(_decode_fragment(fragment, charset, delimiters) for fragment in _FRAGMENTS.findall(value))
    except UnicodeError:
        return _fall_back(value)


def _decode_fragment(fragment: bytes, charset: Charset, delimiters: bytes) -> str:
    if fragment[0] != _ESCAPE:
        return fragment.decode(charset[0])
    length = 4 if fragment[:3] in (b"\x1b$(", b"\x1b$)") else 3
    codec = CODES_TO_ENCODINGS.get(fragment[:length])
    if codec is None:
        return fragment.decode(charset[0])
    if codec in handled_encodings:
        return fragment.decode(codec)  # Python's ISO 2022 codecs read the escape sequence themselves
    text = fragment[length:]
    end = next((index for index, byte in enumerate(text) if byte in delimiters), len(text))
    return text[:end].decode(codec) + text[end:].decode(charset[0])


def _fall_back(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeError:
        return value.decode("latin-1")
