"""The SOP classes and transfer syntaxes that are accepted, from ``Keyword:UID`` files or by default."""

import re
from pathlib import Path

from imaging_services.domain.errors import SettingsError

SOP_CLASSES_FILE = "IMAGE_CUIDS"
TRANSFER_SYNTAXES_FILE = "IMAGE_TSUIDS"

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_DICOM = "1.2.840.10008."
_STORAGE = _DICOM + "5.1.4.1.1."

DEFAULT_TRANSFER_SYNTAXES: tuple[str, ...] = tuple(
    _DICOM + "1.2" + suffix
    for suffix in ("", ".1", ".4.50", ".4.51", ".4.70", ".4.57", ".4.80", ".4.81", ".4.90", ".4.91", ".5")
)

_DEFAULT_STORAGE = """
1 1.1 1.1.1 1.2 1.2.1 1.3 1.3.1 2 2.1 2.2 3 3.1 4 4.1 4.2 4.3 4.4 6.1 6.2 7 7.1 7.2 7.3 7.4
9.1.1 9.1.2 9.1.3 9.2.1 9.3.1 9.4.1 9.4.2 9.5.1 9.6.1 9.6.2 9.7.1 9.7.2 9.7.3 9.7.4 9.8.1
11.1-11 12.1 12.1.1 12.2 12.2.1 13.1.1-5 14.1 14.2 20 30 66 66.1-6 67 68.1 68.2
77.1.1 77.1.1.1 77.1.2 77.1.2.1 77.1.3 77.1.4 77.1.4.1 77.1.5.1-8 77.1.6 77.1.7 78.1-8 79.1 80.1 81.1 82.1
88.11 88.22 88.33 88.34 88.35 88.40 88.50 88.59 88.65 88.67-76 90.1 91.1 104.1-5 128 128.1 130 131 200.2 200.8
481.1-22
"""


def _expand(short: str) -> list[str]:
    stem, _, last = short.partition("-")
    if not last:
        return [_STORAGE + stem]
    prefix, _, first = stem.rpartition(".")
    return [f"{_STORAGE}{prefix}.{number}" for number in range(int(first), int(last) + 1)]


DEFAULT_SOP_CLASSES: tuple[str, ...] = (
    *(uid for short in _DEFAULT_STORAGE.split() for uid in _expand(short)),
    _DICOM + "5.1.4.34.7",
    _DICOM + "5.1.4.34.10",
)


def parse_uid_list(text: str) -> tuple[str, ...]:
    """UIDs of ``Keyword:UID`` lines in their order, each once; blank lines, ``#`` lines and lines that do not
    split into exactly a keyword and a UID are ignored."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        parts = line.strip().split(":")
        if line.lstrip().startswith("#") or len(parts) != 2:
            continue
        uid = parts[1].strip()
        if len(uid) <= 64 and _UID.fullmatch(uid):
            found[uid] = None
    return tuple(found)


def load_uid_lists(directory: Path | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """SOP classes and transfer syntaxes of a configuration directory; the defaults replace both lists when either
    file is missing. Raises ``SettingsError`` when a file cannot be read or names no UID."""
    if directory is None or not all((directory / name).exists() for name in (SOP_CLASSES_FILE, TRANSFER_SYNTAXES_FILE)):
        return DEFAULT_SOP_CLASSES, DEFAULT_TRANSFER_SYNTAXES
    return _read(directory / SOP_CLASSES_FILE), _read(directory / TRANSFER_SYNTAXES_FILE)


def _read(path: Path) -> tuple[str, ...]:
    try:
        uids = parse_uid_list(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    if not uids:
        raise SettingsError(f"{path} holds no line of the form Keyword:UID")
    return uids
