"""Spools: where an instance waits until it is stored, in memory up to a limit and in a file above it."""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import structlog

from imaging_services.domain.errors import BackendUnavailable, OutOfResources, SettingsError

log = structlog.get_logger(__name__)

MEMORY_LIMIT = 8 * 1024 * 1024
"""Longest instance that is kept in memory, bytes."""
WRITE_SIZE = 1024 * 1024
"""Bytes gathered before they are written, since DIMSE fragments are small."""

_PREFIX, _SUFFIX = "imaging-instance-", ".spool"
_LOCKED_BY_THEN_SECONDS = 60

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE}


class FileSpools:
    """Makes spools in a directory (default: ``SPOOL_DIR``, else the system's ``TMPDIR``).

    A file that a killed process left behind is removed when the next one with the same directory starts. Raises
    ``SettingsError`` when the directory cannot be written.
    """

    def __init__(self, directory: Path | None = None, *, memory_limit: int = MEMORY_LIMIT) -> None:
        self._directory = directory or Path(os.environ.get("SPOOL_DIR") or tempfile.gettempdir())
        self._memory_limit = memory_limit
        if not os.access(self._directory, os.W_OK | os.X_OK):
            raise SettingsError(f"SPOOL_DIR: {self._directory} is not a directory that can be written")
        _remove_leftovers(self._directory)

    def open(self) -> AbstractAsyncContextManager["FileSpool"]:
        """A new spool; leaving the context removes its file in every case."""
        return _opened(FileSpool(self._directory, self._memory_limit))


@asynccontextmanager
async def _opened(spool: "FileSpool") -> AsyncIterator["FileSpool"]:
    try:
        yield spool
    finally:
        spool.close()


class FileSpool:
    """One instance on its way. Not to be written after ``body`` or ``digest``."""

    def __init__(self, directory: Path, memory_limit: int) -> None:
        self._directory = directory
        self._memory_limit = memory_limit
        self._blocks: list[bytes] = []
        self._pending = 0
        self._size = 0
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._hash = hashlib.sha256()
        self._hashed = 0  # blocks in memory that are in the hash already
        self._body: bytes | None = None
        self._writing: asyncio.Future[None] | None = None

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    async def write(self, block: bytes) -> None:
        """Append. Raises ``OutOfResources`` when the disk is full, ``BackendUnavailable`` when it fails."""
        if self._path is None:
            # While the rest is still on its way: at the end it would be waited for.
            self._hash.update(block)
            self._hashed += 1
        self._blocks.append(block)
        self._size += len(block)
        self._pending += len(block)
        if self._pending >= WRITE_SIZE if self._path else self._size > self._memory_limit:
            await self._flush()

    async def body(self) -> bytes | Path:
        """All that was written: bytes up to the memory limit, else the path of a file."""
        if self._path is None:
            if self._body is None:
                self._body = b"".join(self._blocks)
                self._blocks.clear()
            return self._body
        await self._flush()
        return self._path

    async def digest(self) -> str:
        """Lower-case hex SHA-256, which was computed while writing."""
        await self.body()
        return self._hash.hexdigest()

    async def _flush(self) -> None:
        blocks, self._blocks, self._pending = self._blocks, [], 0
        if blocks:
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._append, blocks))
            await asyncio.shield(self._writing)

    def _append(self, blocks: list[bytes]) -> None:
        try:
            if self._file is None:
                descriptor, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=self._directory)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # says that its process is alive
                self._file, self._path = os.fdopen(descriptor, "wb", buffering=0), Path(name)
            for number, block in enumerate(blocks):
                _write_all(self._file, block)
                if number >= self._hashed:
                    self._hash.update(block)
            self._hashed = 0
        except OSError as error:
            raise _converted(error, self._directory) from error

    def close(self) -> None:
        """Remove the file, after a write that is still under way."""
        if self._writing is not None and not self._writing.done():
            self._writing.add_done_callback(self._remove)
        else:
            self._remove()

    def _remove(self, writing: "asyncio.Future[None] | None" = None) -> None:
        if writing is not None and not writing.cancelled():
            writing.exception()  # retrieved: whoever waited has gone
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _write_all(file: BinaryIO, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _converted(error: OSError, directory: Path) -> OutOfResources | BackendUnavailable:
    if error.errno in _FULL:
        return OutOfResources(f"the spool in {directory} is full: {error.strerror}")
    return BackendUnavailable(f"the spool in {directory} cannot be written: {error.strerror}")


def _remove_leftovers(directory: Path) -> None:
    """Remove spool files that no living process has locked."""
    for path in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if time.time() - path.stat().st_mtime > _LOCKED_BY_THEN_SECONDS:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                log.info("leftover spool file removed", path=str(path))
