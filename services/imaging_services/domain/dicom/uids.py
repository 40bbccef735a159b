"""Unique identifiers (PS3.5 section 9) as peers really send them, and our own."""

import re

from imaging_services.domain.errors import MissingIdentifier

IMPLEMENTATION_CLASS_UID = "2.25.227412340298154906138726420961784532207"
"""Ours, in file meta headers and association negotiation (PS3.7 annex D.3.3.2). Frozen: it is part of every digest."""
IMPLEMENTATION_VERSION_NAME = "IMAGING_1"
"""Ours, at most 16 characters. Frozen: it is part of every digest."""

_LENIENT = re.compile(r"(?=.*[0-9])[0-9.]{1,64}")


def clean_uid(value: str | bytes | bytearray) -> str:
    """The UID without its padding: trailing NUL (the Standard's) and spaces (what many senders use)."""
    text = value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else value
    return text.strip(" \x00")


def is_uid(text: str) -> bool:
    """True for 1 to 64 digits and dots with at least one digit.

    Components with leading zeros or empty ones break PS3.5 section 9.1 but identify as well as any other string,
    and instances that carry them exist in every hospital's archive.
    """
    return _LENIENT.fullmatch(text) is not None


def require_uid(name: str, value: str | bytes | None) -> str:
    """The cleaned UID. Raises ``MissingIdentifier`` that names the attribute when it is absent or malformed."""
    text = clean_uid(value) if value is not None else ""
    if not text:
        raise MissingIdentifier(f"{name} is absent or empty")
    if not is_uid(text):
        raise MissingIdentifier(f"{name} {text[:80]!r} is not a UID")
    return text
