"""What the local stack accepts by C-STORE: every storage SOP class and transfer syntax of PS3.6.

The services' own default lists are narrower (no Big Endian, no deflated, no HTJ2K). On one machine there is no target
AE to spare, so nothing is refused that can be stored.
"""

from pathlib import Path

from pydicom._uid_dict import UID_dictionary

_NAME, _KIND, _KEYWORD = 0, 1, 4
_NOT_FOR_INSTANCES = ("Papyrus", "SMPTE", "RFC2557", "XML", "JPIP")


def write_capability_lists(directory: Path) -> Path:
    """Write ``IMAGE_CUIDS`` and ``IMAGE_TSUIDS`` (lines ``Keyword:UID``) where they are absent: edits are kept."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, kind, needle in (("IMAGE_CUIDS", "SOP Class", "Storage"), ("IMAGE_TSUIDS", "Transfer Syntax", "")):
        path = directory / name
        if not path.exists():
            path.write_text("".join(f"{keyword}:{uid}\n" for keyword, uid in _known(kind, needle)))
    return directory


def _known(kind: str, needle: str) -> list[tuple[str, str]]:
    return [
        (entry[_KEYWORD], uid)
        for uid, entry in UID_dictionary.items()
        if entry[_KIND] == kind
        and needle in entry[_NAME]
        and entry[_KEYWORD]
        and "StorageCommitment" not in entry[_KEYWORD]
        and not any(word in entry[_KEYWORD] for word in _NOT_FOR_INSTANCES)
    ]
