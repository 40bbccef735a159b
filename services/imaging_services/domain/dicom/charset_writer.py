"""Encoding text in a Specific Character Set that a peer asked for (PS3.5 sections 6.1.2.4 and 6.1.2.5)."""

import re
from functools import lru_cache

from pydicom.charset import ENCODINGS_TO_CODES, STAND_ALONE_ENCODINGS, python_encoding

from imaging_services.domain.dicom.charset import charset_of, decode

UTF_8 = "ISO_IR 192"

_STRICT = {"iso_ir_58": "gb2312", "iso8859": "ascii"}
_ESCAPE_58 = ENCODINGS_TO_CODES["iso_ir_58"]
_WRITES_ESCAPES = frozenset({"iso2022_jp", "iso2022_jp_2"})
_DELIMITERS = {"PN": re.compile(r"([\\^=])"), "LT": re.compile(r"([\r\n\f\t])")}
_BETWEEN_VALUES = re.compile(r"([\\\r\n\f\t])")
_PARAGRAPHS = frozenset({"LT", "ST", "UT"})


@lru_cache(maxsize=64)
def writable(terms: tuple[str, ...]) -> bool:
    """Whether these are Defined Terms, spelled as the Standard does, that text can be written in."""
    known = all(term in python_encoding for term in terms)
    alone = any(term in STAND_ALONE_ENCODINGS for term in terms)
    return bool(terms) and any(terms) and known and (len(terms) == 1 or not alone)


def encode(text: str, vr: str, terms: tuple[str, ...]) -> bytes | None:
    """The text in that character set; None when it has no such characters, or would not be read again as they are."""
    if text.isascii():
        return text.encode("ascii")
    delimiters = _DELIMITERS.get("LT" if vr in _PARAGRAPHS else vr, _BETWEEN_VALUES)
    codecs = [_STRICT.get(name, name) for name in (python_encoding[term] for term in terms)]
    pieces = [_piece(piece, codecs) for piece in delimiters.split(text)]
    encoded = [piece for piece in pieces if piece is not None]
    value = b"".join(encoded)
    charset = charset_of("\\".join(terms).encode("ascii"))
    same = len(encoded) == len(pieces) and decode(value, charset, b"\\^=" if vr == "PN" else b"\\\r\n\f\t") == text
    return value if same else None


def _piece(text: str, codecs: list[str]) -> bytes | None:
    """Text between delimiters: in the first set, else all of it in one of the others, with its escape sequence."""
    first, *others = codecs
    for codec in (first, *others):
        try:
            encoded = text.encode(codec)
        except UnicodeError:
            continue
        if codec == "shift_jis" and len(encoded) != len(text):
            continue  # ISO_IR 13 has but the characters of one byte
        if codec == first or codec in _WRITES_ESCAPES:
            return encoded
        return ENCODINGS_TO_CODES.get(codec, _ESCAPE_58) + encoded
    return None
