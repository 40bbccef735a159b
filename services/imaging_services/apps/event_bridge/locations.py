"""The hub's edges: a JSON file of location names and mailbox ids, read again when it changes."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import orjson
import structlog

from imaging_services.domain.errors import SettingsError
from imaging_services.domain.events.subjects import MailboxSubjects

log = structlog.get_logger(__name__)

Mark = tuple[int, int, int]


class EdgeLocations:
    """Location name to mailbox id, as the file says now.

    A file that becomes unreadable is logged and the last good content kept: a slip of the pen stops no event.
    """

    def __init__(self, path: Path, subjects: MailboxSubjects) -> None:
        """Raises ``SettingsError`` when the file is not there or wrong."""
        self._path = path
        self._subjects = subjects
        self._mark = self._look()
        self._locations = self._read()

    async def current(self) -> Mapping[str, str]:
        """The locations; the file is looked at each time, which costs one system call."""
        await asyncio.to_thread(self._refresh)
        return self._locations

    def _refresh(self) -> None:
        try:
            mark = self._look()
            if mark == self._mark:
                return
            self._mark = mark
            self._locations = self._read()
        except SettingsError as error:
            log.error("edge locations not read, the former ones stay", error=str(error))
        else:
            log.info("edge locations read", edges=sorted(self._locations.values()))

    def _look(self) -> Mark:
        try:
            state = self._path.stat()
        except OSError as error:
            raise SettingsError(f"EDGE_LOCATION_CONFIG {self._path} cannot be read: {error.strerror}") from None
        return state.st_mtime_ns, state.st_ino, state.st_size

    def _read(self) -> dict[str, str]:
        try:
            document = orjson.loads(self._path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise SettingsError(f"EDGE_LOCATION_CONFIG {self._path} is not a JSON file: {error}") from None
        if not isinstance(document, dict) or not all(isinstance(mailbox, str) for mailbox in document.values()):
            raise SettingsError(f"EDGE_LOCATION_CONFIG {self._path} is not an object of location names and mailbox ids")
        for mailbox in document.values():
            self._subjects.edge(mailbox)
        return document
