"""Canonical forms of recorded values, so that text comparison in the database means what the Standard says.

Each function has a twin in ``adapters/postgres/migrations`` where SQL needs it; a contract test holds them together.
"""

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timedelta

MAX_VALUE = 1000
"""Longest recorded value, characters: the width of the attribute tables' ``value`` column."""
MAX_KEY = 255
"""Longest indexed value, characters: a B-tree entry of PostgreSQL holds 2.7 kB."""
MAX_VALUES = 64

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_DATE = re.compile(r"[0-9]{8}")
_OLD_DATE = re.compile(r"([0-9]{4})\.([0-9]{2})\.([0-9]{2})")
_TIME = re.compile(r"[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?")
_ZONE = r"[+-](?:0[0-9]|1[0-4])[0-5][0-9]"
_DATE_TIME = re.compile(rf"([0-9]{{4}}(?:[0-9]{{2}}){{0,5}}(?:\.[0-9]{{1,6}})?)({_ZONE})?")
_PARTS = ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))
_NAME_SEPARATORS = re.compile(r"[\s^=,.*?'\\-]+")
_PLAIN_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)
"""Letters whose stroke or ligature Unicode takes for part of the letter."""
_INT4 = 2**31
_NUMERIC = frozenset({"IS", "US", "DS"})


def clean_text(value: str) -> str:
    """Without padding, and without NUL and other control characters that no database text may hold."""
    if len(value) <= MAX_VALUE and value.isprintable():
        return value.strip(" ")
    return _CONTROL.sub("", value).strip(" ")[:MAX_VALUE].rstrip(" ")


def clean_values(vr: str, values: Sequence[str]) -> list[str]:
    """Values as recorded: padding gone, numbers in one spelling, empty ones left out."""
    cleaned = [clean_text(value) for value in values[:MAX_VALUES]]
    if vr in _NUMERIC or vr == "DA":
        cleaned = [_canonical(vr, value) for value in cleaned]
    return [value for value in cleaned if value]


def _canonical(vr: str, value: str) -> str:
    if vr == "DS":
        return decimal_number(value) or value
    if vr == "DA":
        return date_key(value) or value
    number = whole_number(value)
    return value if number is None else str(number)


def whole_number(value: str) -> int | None:
    """An integer string of PS3.5 (12 characters, 32 bits); None for anything else."""
    try:
        number = int(value, 10) if value.isascii() and "_" not in value else None
    except ValueError:
        return None
    return number if number is not None and -_INT4 <= number < _INT4 else None


def decimal_number(value: str) -> str | None:
    """A decimal string in one spelling; None when it is no finite number."""
    try:
        number = float(value) if value.isascii() and "_" not in value else float("nan")
    except ValueError:
        return None
    if number != number or abs(number) == float("inf"):
        return None
    return str(int(number)) if number.is_integer() and abs(number) < 10**15 else repr(number)


def date_key(value: str) -> str | None:
    """``YYYYMMDD``, also from the form with dots of ACR-NEMA (PS3.5 section 6.2); None when it is no date."""
    old = _OLD_DATE.fullmatch(value)
    if old:
        return "".join(old.groups())
    return value if _DATE.fullmatch(value) else None


def time_key(value: str) -> str | None:
    """``HHMMSS.FFFFFF`` with absent parts as zeros, also from the form with colons; None when it is no time."""
    digits = value.replace(":", "")
    if not _TIME.fullmatch(digits):
        return None
    return f"{digits:0<6}.000000" if len(digits) <= 6 else f"{digits:0<13}"


def date_time_key(value: str) -> str | None:
    """``YYYYMMDDHHMMSS.FFFFFF`` with absent parts at their least, in its own zone; None when it is no date-time."""
    match = _DATE_TIME.fullmatch(value)
    if not match:
        return None
    text = match[1]
    if "." in text:
        return f"{text:0<21}" if len(text) > 15 and text.index(".") == 14 else None
    return f"{text}{'00000101000000'[len(text) :]}.000000"


def zone_minutes(value: str) -> int | None:
    """An offset from UTC (``+0100``), or that at the end of a date-time, in minutes; None when there is none."""
    match = _DATE_TIME.fullmatch(value)
    zone = match[2] if match else value if re.fullmatch(_ZONE, value) else None
    return None if zone is None else int(f"{zone[0]}1") * (60 * int(zone[1:3]) + int(zone[3:5]))


def moved(key: str, minutes: int) -> str | None:
    """The key of a date-time so many minutes later; None when its date does not exist."""
    year, month, day, hour, minute, second = (int(key[start:end]) for start, end in _PARTS)
    try:
        moment = datetime(year, month, day) + timedelta(hours=hour, minutes=minute + minutes, seconds=second)
    except (ValueError, OverflowError):
        return None
    return f"{moment.year:04}{moment:%m%d%H%M%S}{key[14:]}"


def name_keys(value: str) -> list[str]:
    """The component groups of a person name (alphabetic, ideographic, phonetic; PS3.5 section 6.2.1) as they are
    compared: case folded, spaces around components and trailing empty components gone, empty groups left out."""
    return [key for key in (_name_key(group) for group in value.split("=")) if key]


def name_key_columns(value: str) -> tuple[str | None, str | None, str | None]:
    """The three component groups' keys in their places, None where a group is empty; cut to ``MAX_KEY``."""
    keys = [_name_key(group)[:MAX_KEY] or None for group in value.split("=")[:3]]
    keys += [None] * (3 - len(keys))
    return keys[0], keys[1], keys[2]


def _name_key(group: str) -> str:
    return "^".join(part.strip(" ") for part in group.casefold().split("^")).rstrip("^ ")


def name_words(value: str) -> list[str]:
    """The words of a person name for fuzzy matching: case folded, accents gone, each once, in order."""
    decomposed = unicodedata.normalize("NFKD", value.casefold()).translate(_PLAIN_LETTERS)
    folded = "".join(character for character in decomposed if not unicodedata.combining(character))
    words = [word[:MAX_KEY] for word in _NAME_SEPARATORS.split(folded) if word]
    return list(dict.fromkeys(words))
