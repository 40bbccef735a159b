"""A storage space in a local folder, one file an object; only by the explicit key ``LOCAL_STORAGE_PATH``."""

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from imaging_services.domain.errors import BackendUnavailable, NotFound, OutOfResources
from imaging_services.domain.ports import ObjectInfo

BLOCK_SIZE = 1024 * 1024
"""Longest block of a stream, bytes."""

_PARTIAL = ".partial"
_LOOKED_AT_ONCE = 1000
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE}


class FolderStore:
    """Objects as files. A file appears under its key only when it is complete and on disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def bucket_name(self) -> str | None:
        """None, as events say it for local storage."""
        return None

    async def put(self, key: str, body: bytes | Path) -> None:
        """Write, flush to disk, rename, flush the folder."""
        await asyncio.to_thread(self._put, self._path(key), body)

    def _put(self, path: Path, body: bytes | Path) -> None:
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
        with _converted("put"):
            try:
                with partial.open("xb", buffering=0) as file:
                    _write(file, body)
                    os.fsync(file.fileno())
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            _sync_folder(self._directory)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read a range. Raises ``NotFound``."""
        return await asyncio.to_thread(self._read, self._path(key), start, length)

    def _read(self, path: Path, start: int, length: int | None) -> bytes:
        with _converted("get"), path.open("rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)

    async def stream(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Read as blocks. Raises ``NotFound`` before the first."""
        path = self._path(key)
        with _converted("get"):
            file = await asyncio.to_thread(path.open, "rb")
        with file:
            file.seek(start)
            left = length
            while left is None or left > 0:
                wanted = BLOCK_SIZE if left is None else min(BLOCK_SIZE, left)
                with _converted("get"):
                    block = await asyncio.to_thread(file.read, wanted)
                if not block:
                    return
                if left is not None:
                    left -= len(block)
                yield block

    def file(self, key: str) -> Path:
        """Where the object is, or would be."""
        return self._path(key)

    async def file_length(self, key: str) -> int | None:
        """Its size, or None."""
        info = await self.head(key)
        return info.size if info is not None else None

    async def head(self, key: str) -> ObjectInfo | None:
        """Size and time, or None."""
        try:
            return await asyncio.to_thread(self._info, self._path(key))
        except NotFound:
            return None

    async def delete(self, key: str) -> None:
        """Remove a file; absent is fine."""
        with _converted("delete"):
            await asyncio.to_thread(self._path(key).unlink, missing_ok=True)

    async def list(self, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every file of the folder. The names are in memory meanwhile, some 120 bytes each."""
        with _converted("list"):
            names = await asyncio.to_thread(self._names, after)
        for start in range(0, len(names), _LOOKED_AT_ONCE):
            for info in await asyncio.to_thread(self._infos, names[start : start + _LOOKED_AT_ONCE]):
                yield info

    def _names(self, after: str) -> Sequence[str]:
        return sorted(name for name in os.listdir(self._directory) if name > after and not name.endswith(_PARTIAL))

    def _infos(self, names: Sequence[str]) -> Sequence[ObjectInfo]:
        """Of those that are still there."""
        found = []
        for name in names:
            with suppress(NotFound):
                found.append(self._info(self._path(name)))
        return found

    async def check(self) -> None:
        """Write, read and delete a small file. Raises with a sentence that names the folder."""
        key = f"imaging-check-{secrets.token_hex(8)}"
        try:
            await self.put(key, b"check")
            await self.get(key)
            await self.delete(key)
        except (BackendUnavailable, NotFound) as error:
            raise BackendUnavailable(f"folder {self._directory}: {error}") from error

    async def close(self) -> None:
        """Nothing to give back."""

    def _path(self, key: str) -> Path:
        if not key or "/" in key or "\x00" in key or key in (".", ".."):
            raise NotFound(f"no object has the key {key!r}")
        return self._directory / key

    def _info(self, path: Path) -> ObjectInfo:
        with _converted("head"):
            found = path.stat()
        return ObjectInfo(path.name, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _write(file: FileIO, body: bytes | Path) -> None:
    if isinstance(body, bytes):
        _write_all(file, body)
    else:
        with body.open("rb") as source:
            while block := source.read(BLOCK_SIZE):
                _write_all(file, block)


def _write_all(file: FileIO, block: bytes) -> None:
    written = file.write(block)
    while written < len(block):
        written += file.write(memoryview(block)[written:])


def _sync_folder(directory: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _converted(operation: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if operation == "put":
            raise BackendUnavailable("put: the folder does not exist") from error
        raise NotFound(f"{operation}: no such object") from error
    except OSError as error:
        if error.errno in _FULL:
            raise OutOfResources(f"{operation}: the disk is full ({error.strerror})") from error
        raise BackendUnavailable(f"{operation}: {error.strerror}") from error
