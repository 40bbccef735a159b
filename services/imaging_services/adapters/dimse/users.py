"""Who may open an association by user name and passcode (PS3.7 section D.3.3.7)."""

import hmac
from dataclasses import replace
from pathlib import Path

import structlog

from imaging_services.domain.dicom.dimse import USER_NOT_AUTHENTICATED, Rejection, UserIdentity
from imaging_services.domain.errors import SettingsError

log = structlog.get_logger(__name__)

_USER_NAME, _USER_NAME_AND_PASSCODE = 1, 2
_OTHER_KINDS = {3: "Kerberos service tickets", 4: "SAML assertions", 5: "JSON Web Tokens"}


class Users:
    """A file of ``name:passcode`` lines, read again when it has changed; a name without a passcode is let in by its
    name alone. Raises ``SettingsError`` when it is wrong at the start; when it is wrong later, the last right one
    counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._passcodes: dict[bytes, bytes] = {}
        self._load()

    def refusal(self, identity: UserIdentity | None) -> Rejection | None:
        """Why an association with this identity is rejected, or None."""
        try:
            self._load()
        except SettingsError as error:
            log.error("user names not read again", error=str(error))
        if identity is None:
            return replace(USER_NOT_AUTHENTICATED, why="no user identity")
        if identity.kind not in (_USER_NAME, _USER_NAME_AND_PASSCODE):
            kind = _OTHER_KINDS.get(identity.kind, f"user identity type {identity.kind}")
            return replace(USER_NOT_AUTHENTICATED, why=f"{kind} not supported, only user names")
        given = identity.secondary if identity.kind == _USER_NAME_AND_PASSCODE else b""
        # an unknown name costs the same time as a wrong passcode, and both are refused with the same words
        wanted = self._passcodes.get(identity.primary)
        same = hmac.compare_digest(given, wanted if wanted is not None else b"\0" + given)
        return None if same and wanted is not None else replace(USER_NOT_AUTHENTICATED, why="wrong user or passcode")

    def _load(self) -> None:
        """Small and local: read where it is needed, only when it is another file or has changed."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._passcodes = _parse(self._path.read_bytes(), self._path)
        except OSError as error:
            raise SettingsError(f"DIMSE_USERS_FILE={self._path} cannot be read: {error.strerror}") from error


def _parse(content: bytes, path: Path) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip() or line.startswith(b"#"):
            continue
        name, colon, passcode = line.partition(b":")
        if not colon or not name or name in found:
            raise SettingsError(f"DIMSE_USERS_FILE={path} line {number}: write name:passcode, each name once")
        found[name] = passcode
    if not found:
        raise SettingsError(f"DIMSE_USERS_FILE={path} names no user: nobody could open an association")
    return found
