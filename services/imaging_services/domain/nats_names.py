"""What NATS takes as subjects and names of streams, buckets and consumers."""

import hashlib
import re

from imaging_services.domain.errors import SettingsError

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What NATS itself takes, less names that begin with $, which are the server's own.
_SUBJECT = re.compile(r"(?!\$)[^\s.*>\x00-\x1f\x7f]+(\.[^\s.*>\x00-\x1f\x7f]+)*")


def token(name: str) -> str:
    """A name as one NATS token, usable in subjects, stream and durable names; equal names give equal tokens.

    NATS refuses ``.``, ``*``, ``>``, space and path separators there. Such a name keeps what may stay and gets a
    digest, so that ``a.b`` and ``a-b`` remain two.
    """
    if _TOKEN.fullmatch(name):
        return name
    kept = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:55].strip("-")
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def is_subject(text: str) -> bool:
    """It may be a part of a subject: words joined by single dots, no wildcard, no space."""
    return _SUBJECT.fullmatch(text) is not None


def checked_root(root: str) -> str:
    """The subject root itself. Raises ``SettingsError`` when it cannot begin a subject."""
    if not is_subject(root):
        raise SettingsError(
            f"subject root {root!r} is not usable: words joined by single dots, without spaces, '*' and '>', "
            "not beginning with '$'"
        )
    return root
