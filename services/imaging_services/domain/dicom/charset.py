"""Decoding text by Specific Character Set (0008,0005) (PS3.5 section 6.1, PS3.3 section C.12.1.1.2).

Never fails and never loses a byte. What the declared character set cannot decode, and UTF-8 under the name of a Latin
one, is read as what it plainly is: UTF-8, else Windows-1252, and the bytes that this has no character for as
ISO 8859-1, which has one for every byte.
"""

import codecs
import contextlib
import re
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, STAND_ALONE_ENCODINGS, python_encoding

_ESCAPE = 0x1B
_FRAGMENTS = re.compile(rb"(^[^\x1b]+|\x1b[^\x1b]*)")
_DEFAULT = "utf-8"  # the default repertoire is ASCII; who sends more without saying so mostly sends UTF-8
_LATIN = frozenset({"latin_1", "iso8859_2", "iso8859_3", "iso8859_4", "iso_ir_148"})
_READS_ESCAPES = frozenset({"iso2022_jp", "iso2022_jp_2"})
_WIDER = {"euc_kr": "cp949", **dict.fromkeys(("iso_ir_58", "GB2312", "GBK", "GB18030"), "gb18030")}
"""What senders use under these names holds them and more."""
_CAN_BE_CUT = frozenset({"cp949", "gb18030"})
_LONGEST_CHARACTER = 4  # bytes, of UTF-8 and GB18030
_TERM = re.compile(r"(?:ISO)?[ _.-]*(2022)?[ _.-]*(?:IR)?[ _.-]*([0-9]{1,3})", re.IGNORECASE)
_ISO_8859 = re.compile(r"(?:ISO)?[ _.-]*8859[ _.-]*([0-9]{1,2})", re.IGNORECASE)
_OTHER_NAMES = {
    "UTF8": "utf-8",
    "ASCII": _DEFAULT,
    "USASCII": _DEFAULT,
    "LATIN1": "latin_1",
    "WINDOWS1252": "cp1252",
    "CP1252": "cp1252",
    "GB18030": "gb18030",
    "GB2312": "gb18030",
    "ISO2022GBK": "gb18030",
    "SHIFTJIS": "cp932",
    "EUCKR": "cp949",
    "BIG5": "big5hkscs",
}

Charset = tuple[str, ...]
"""Python codecs, the first for text before any escape sequence."""


@lru_cache(maxsize=256)
def charset_of(value: bytes) -> Charset:
    """The codecs that a raw value of Specific Character Set names; unknown names count as the default repertoire."""
    names = [_corrected(name.strip(" \x00")) for name in value.decode("latin-1").split("\\")]
    alone = next((name for name in names if name in STAND_ALONE_ENCODINGS), None)
    if alone and (names[0] == alone or all(_codec(name) == _DEFAULT for name in names if name != alone)):
        return (_codec(alone),)
    return tuple(_codec(name) for name in names if name not in STAND_ALONE_ENCODINGS)


def _codec(name: str) -> str:
    if name in ("", "ISO_IR 6", "ISO 2022 IR 6"):
        return _DEFAULT
    iso_8859 = _ISO_8859.fullmatch(name)
    try:
        found = f"iso8859_{int(iso_8859[1])}" if iso_8859 else python_encoding.get(name)
        found = found or _OTHER_NAMES[re.sub("[ _.-]", "", name)]
        codecs.lookup(found)
    except LookupError:
        return _DEFAULT
    return "latin_1" if found == "iso8859_1" else _WIDER.get(found, found)


def _corrected(name: str) -> str:
    """Common misspellings: ``ISO-IR 100``, ``ISO_2022_IR_6``, ``ISO IR100``, ``IR 192``, lower case."""
    found = _TERM.fullmatch(name)
    if not found:
        return name.upper()
    return f"{'ISO 2022 IR' if found[1] else 'ISO_IR'} {int(found[2])}"


def decode(value: bytes, charset: Charset, delimiters: bytes = b"\\\r\n\f\t") -> str:
    """Text of a value. ``delimiters`` reset code extensions (PS3.5 section 6.1.2.5.3)."""
    if value.isascii() and _ESCAPE not in value:
        return value.decode("ascii")
    try:
        if _ESCAPE in value:
            return "".join(_decode_fragment(fragment, charset, delimiters) for fragment in _FRAGMENTS.findall(value))
        return _plain(value, charset[0])
    except UnicodeError:
        return _fall_back(value, charset[0])


def _plain(value: bytes, codec: str) -> str:
    """Text without escape sequences. Hardly any Latin text is UTF-8 by chance: a capital letter or two with an accent
    would have to be followed by signs in each place."""
    if codec not in _LATIN:
        return value.decode(codec)
    try:
        return value.decode("utf-8")
    except UnicodeError:
        return _latin(value) if codec == "latin_1" else value.decode(codec)


def _decode_fragment(fragment: bytes, charset: Charset, delimiters: bytes) -> str:
    if fragment[0] != _ESCAPE:
        return _plain(fragment, charset[0])
    length = 4 if fragment[:3] in (b"\x1b$(", b"\x1b$)") else 3
    codec = CODES_TO_ENCODINGS.get(fragment[:length])
    if codec is None:
        return fragment.decode(charset[0])
    if codec in _READS_ESCAPES:
        return _japanese(fragment, codec)
    text = fragment[length:]
    end = next((index for index, byte in enumerate(text) if byte in delimiters), len(text))
    return text[:end].decode(_WIDER.get(codec, codec)) + text[end:].decode(charset[0])


def _japanese(fragment: bytes, codec: str) -> str:
    """ISO 2022 IR 87 and 159. The characters that Windows adds to JIS X 0208, some of them in common names, are in
    none of Python's ISO 2022 codecs: they are read by way of Shift JIS."""
    try:
        return fragment.decode(codec)
    except UnicodeError:
        if codec != "iso2022_jp" or len(fragment) % 2 == 0 or not 0x21 <= min(fragment[3:]) <= max(fragment) < 0x7F:
            raise
    pairs = zip(fragment[3::2], fragment[4::2], strict=True)
    return b"".join(_shift_jis(row - 0x21, cell) for row, cell in pairs).decode("cp932")


def _shift_jis(row: int, cell: int) -> bytes:
    """A character of JIS X 0208 in Shift JIS (JIS X 0208 annex 1); ``row`` counts from 0."""
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    trail = cell + (0x7E if row % 2 else 0x20 if cell > 0x5F else 0x1F)
    return bytes((lead, trail))


def _fall_back(value: bytes, codec: str) -> str:
    """UTF-8 or the declared multi-byte set, also when a length limit has cut the last character."""
    for name in ("utf-8", codec) if codec in _CAN_BE_CUT else ("utf-8",):
        for cut in range(_LONGEST_CHARACTER):
            whole, rest = value[: len(value) - cut], value[len(value) - cut :]
            with contextlib.suppress(UnicodeError):
                text = whole.decode(name)
                if cut == 0 or not text.isascii():
                    return text + _latin(rest)
    return _latin(value)


def _latin(value: bytes) -> str:
    """Windows-1252 is what most senders of ISO 8859-1 mean by 80H to 9FH."""
    return "".join(_WINDOWS.get(byte) or chr(byte) for byte in value)


_WINDOWS = {
    byte: bytes([byte]).decode("cp1252") for byte in range(0x80, 0xA0) if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
