"""A listing in another order than it came, on disk: millions of names do not belong into memory."""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from imaging_services.domain.errors import OutOfResources
from imaging_services.domain.ports import ObjectInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Listing:
    """Objects by the time of their last change. Made by ``sorted_listing``."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    async def add(self, objects: Sequence[ObjectInfo]) -> None:
        """Some more. Raises ``OutOfResources`` when the disk is full."""
        rows = [((one.last_modified - _EPOCH) // _MICROSECOND, one.key, one.size) for one in objects]
        try:
            await asyncio.to_thread(self._database.executemany, "INSERT INTO object VALUES (?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            raise OutOfResources(f"keeping the listing: {error}") from error

    async def oldest_first(self, size: int, since: datetime | None = None) -> AsyncIterator[list[ObjectInfo]]:
        """So many at a time, those changed at ``since`` or later; those of one moment by key."""
        moment = (since - _EPOCH) // _MICROSECOND if since is not None else -(2**62)
        query = "SELECT key, size, modified FROM object WHERE modified >= ? ORDER BY modified, key"
        try:
            cursor = await asyncio.to_thread(self._database.execute, query, (moment,))
            while rows := await asyncio.to_thread(cursor.fetchmany, size):
                yield [ObjectInfo(key, length, _EPOCH + modified * _MICROSECOND) for key, length, modified in rows]
        except sqlite3.OperationalError as error:
            raise OutOfResources(f"sorting the listing: {error}") from error


@asynccontextmanager
async def sorted_listing(directory: Path | None = None) -> AsyncIterator[Listing]:
    """An empty listing in a file of ``directory`` (default: ``TMPDIR``), some 100 bytes an object; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="imaging-listing-", dir=directory) as folder:
        # Its threads take turns: every call is awaited.
        database = sqlite3.connect(Path(folder) / "listing", isolation_level=None, check_same_thread=False)
        try:
            database.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;"
                " CREATE TABLE object (modified INTEGER, key TEXT, size INTEGER); BEGIN"
            )
            yield Listing(database)
        finally:
            database.close()
