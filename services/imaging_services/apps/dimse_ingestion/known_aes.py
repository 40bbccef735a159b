"""The AEs that instances may be sent to: C-MOVE destinations and requestors of storage commitment."""

import re
from dataclasses import dataclass
from pathlib import Path

import structlog

from imaging_services.domain.errors import NotFound, SettingsError

log = structlog.get_logger(__name__)

KNOWN_AES_FILE = "KNOWN_AES"
_LINE = re.compile(
    r"(?P<title>[^:\\]{1,16}):(?:(?P<proxy>proxy)|(?P<host>\[[^\]]+\]|[^:\s,]+):(?P<port>\d+)(?P<tls>,tls)?)"
)


@dataclass(frozen=True, slots=True)
class KnownAe:
    """An AE and the way to it: ``host:port``, with TLS or without, or through the proxy at the other end of the relay
    (``host`` is empty)."""

    title: str
    host: str = ""
    port: int = 0
    tls: bool = False

    @property
    def behind_proxy(self) -> bool:
        """It is the target AE of the proxy at the other end of the relay."""
        return not self.host


def parse_known_aes(text: str) -> dict[str, KnownAe]:
    """Lines ``TITLE:host:port``, ``TITLE:host:port,tls`` and ``TITLE:proxy``; blank lines and ``#`` lines are ignored.

    Raises ``SettingsError`` that names a line which is none of these, or a title that comes twice.
    """
    found: dict[str, KnownAe] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        port = int(match["port"] or 0) if match else 0
        if match is None or port > 65535 or (match["host"] and not port):
            raise SettingsError(
                f"{KNOWN_AES_FILE} line {number}: write TITLE:host:port, optionally with ,tls behind it"
            )
        title = match["title"].strip()
        if title in found:
            raise SettingsError(f"{KNOWN_AES_FILE} line {number}: the AE title {title} comes twice")
        found[title] = KnownAe(title, (match["host"] or "").strip("[]"), port, bool(match["tls"]))
    return found


class KnownAes:
    """The file ``KNOWN_AES`` of a configuration directory, read again when it has changed. Without it nobody is known.

    Raises ``SettingsError`` when it is wrong at the start; when it is wrong later, the last right one counts.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = directory / KNOWN_AES_FILE if directory is not None else None
        self._stamp: tuple[int, int] | None = None
        self._known: dict[str, KnownAe] = {}
        self._load()

    def get(self, title: str) -> KnownAe:
        """Raises ``NotFound`` for a title that is not in the file."""
        try:
            self._load()
        except SettingsError as error:
            log.error("known AEs not read again", error=str(error))
        try:
            return self._known[title]
        except KeyError:
            raise NotFound(f"AE title {title!r} is not among the known AEs") from None

    def __len__(self) -> int:
        return len(self._known)

    def _load(self) -> None:
        """Small and local: read where it is needed, only when time or size differ."""
        try:
            if self._path is None or not self._path.exists():
                return
            stat = self._path.stat()
            if self._stamp == (stat.st_mtime_ns, stat.st_size):
                return
            self._stamp = (stat.st_mtime_ns, stat.st_size)
            self._known = parse_known_aes(self._path.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise SettingsError(f"{self._path} cannot be read: {error.strerror}") from error
