"""Files of this machine that are copies of objects. Blocking; to be called from any thread."""

import hashlib
import os
import secrets
import shutil
import time
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import structlog
from prometheus_client import Counter, Gauge

from imaging_services.domain.manifest.deletion import digest_of

log = structlog.get_logger(__name__)

BYTES = Gauge("imaging_space_cache_bytes", "objects in the cache's directory when it was last measured, bytes")
EVICTIONS = Counter("imaging_space_cache_evictions", "objects thrown out to make room for others")
FAILURES = Counter("imaging_space_cache_failures", "objects not kept because the cache's directory failed")

TOUCH_SECONDS = 60.0
"""How exactly it is known when an object was last read."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FOLDER = "boot-"
_PARTIAL = ".partial"
_ABANDONED_SECONDS = 300.0
"""Longer than any writer of a temporary file is silent."""
_RETRY_SECONDS = 30.0
_BLOCK = 4096


class CacheDirectory:
    """Objects in files under their own names, at most about ``limit`` bytes of them; processes may share it.

    Nothing is flushed to disk, so a file is only as good as the memory of the running system: files lie in a folder
    named by this boot of it, and those of another boot are removed unread. Within a boot a file is under its name only
    when all of it was written and has the digest that its name says.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self._root, self._limit = directory, limit
        self._boot = _boot_id()
        self._folder = directory / f"{_FOLDER}{self._boot}"
        self._unmeasured = limit  # bytes written since the directory was measured
        self._room = True
        self._measuring = Lock()
        self._failing_since: float | None = None

    @property
    def usable(self) -> bool:
        """False without a boot id, and for a while after the directory has failed."""
        since = self._failing_since
        return bool(self._boot) and (since is None or time.monotonic() - since > _RETRY_SECONDS)

    def prepare(self) -> bool:
        """Make the folder; remove what another boot, or a process that was killed, has left. False when the folder is
        another user's: what lies there may have been forged."""
        if not self._boot:
            log.warning("space cache not used: this system does not say when it was started", file=str(_BOOT_ID))
            return True
        try:
            self._make_folder()
            if self._folder.lstat().st_uid != os.geteuid():
                log.warning("space cache not used: its folder belongs to another user", directory=str(self._folder))
                return False
            for folder in self._root.glob(f"{_FOLDER}*"):
                if folder != self._folder:
                    shutil.rmtree(folder, ignore_errors=True)  # another process may be at it
            self._measure(0)
        except OSError as error:
            self.failed(error)
        return True

    def path(self, key: str) -> Path:
        """Where an object is, or would be. ``key`` is a name that ``digest_of`` knows."""
        return self._folder / key

    def touch(self, key: str) -> bool:
        """Note that an object is being read; False when it is not there."""
        try:
            os.utime(self.path(key))
        except OSError:
            return False
        return True

    def length(self, key: str) -> int | None:
        """Of an object, None when it is not there."""
        try:
            return self.path(key).stat().st_size
        except OSError:
            return None

    def open(self, key: str) -> BinaryIO | None:
        """An object's file, None when it is not there. Who reads on is not disturbed by eviction."""
        try:
            file = self.path(key).open("rb")
        except OSError:
            return None
        self.touch(key)
        return file

    def read(self, key: str, start: int, length: int | None) -> bytes | None:
        """A range of an object, None when it is not there or cannot be read."""
        file = self.open(key)
        if file is None:
            return None
        with file:
            try:
                file.seek(start)
                return file.read(-1 if length is None else length)
            except OSError as error:
                self.failed(error)
                self.remove(key)
                return None

    def keep(self, key: str, content: bytes) -> bool:
        """Keep an object; False when the bytes are not all of it, there is no room, or the directory fails."""
        if hashlib.sha256(content).hexdigest() != digest_of(key):
            return False
        try:
            partial, descriptor = self.create_partial(key)
            try:
                if not self.reserve(len(content)):
                    return False
                write_all(descriptor, content)
                partial.replace(self.path(key))
            finally:
                os.close(descriptor)
                partial.unlink(missing_ok=True)
        except OSError as error:
            self.failed(error)
            return False
        self.succeeded()
        return True

    def remove(self, key: str) -> None:
        """Remove an object; absent is fine."""
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as error:
            self.failed(error)

    def failed(self, error: OSError) -> None:
        """Have nothing written for a while; serving goes on without."""
        FAILURES.inc()
        if self._failing_since is None:
            log.warning(
                "space cache cannot be used, objects are read from the space",
                directory=str(self._root),
                error=str(error),
            )
        self._failing_since = time.monotonic()

    def succeeded(self) -> None:
        """An object has been kept."""
        if self._failing_since is not None:
            self._failing_since = None
            log.info("space cache works again", directory=str(self._root))

    def create_partial(self, key: str) -> tuple[Path, int]:
        """A file for what is not complete yet: its place and a descriptor."""
        self._make_folder()
        partial = self._folder / f"{key}.{secrets.token_hex(4)}{_PARTIAL}"
        return partial, os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def reserve(self, size: int) -> bool:
        """Make room for so many bytes; False when what is not complete yet leaves none. Each process looks at what is
        really there after a sixteenth of the limit, so the limit is exceeded by that much for each other process."""
        self._unmeasured += size
        if self._unmeasured > self._limit // 16 and self._measuring.acquire(blocking=False):
            try:
                self._room = self._measure(size) + size <= self._limit
                self._unmeasured = size
            finally:
                self._measuring.release()
        return self._room

    def _make_folder(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def _measure(self, wanted: int) -> int:
        """Count the files, and throw out those that were not read for longest when there is no room. Returns what is
        left, bytes."""
        files, total, now = [], 0, time.time()
        with os.scandir(self._folder) as entries:
            for entry in entries:
                try:
                    found = entry.stat()
                except FileNotFoundError:  # thrown out by another process
                    continue
                size = -(-found.st_size // _BLOCK) * _BLOCK
                if not entry.name.endswith(_PARTIAL):
                    files.append((found.st_mtime_ns, size, entry.name))
                elif now - found.st_mtime > _ABANDONED_SECONDS:
                    Path(entry.path).unlink(missing_ok=True)
                    continue
                total += size
        if total + wanted > self._limit // 16 * 15:
            total = self._evict(sorted(files), total, self._limit // 8 * 7 - wanted)
        BYTES.set(total)
        return total

    def _evict(self, oldest_first: list[tuple[int, int, str]], total: int, until: int) -> int:
        for _, size, name in oldest_first:
            if total <= until:
                break
            (self._folder / name).unlink(missing_ok=True)
            EVICTIONS.inc()
            total -= size
        return total


class Incoming:
    """One object on its way into the directory, hashed as it is written. Raises ``OSError`` as the disk does."""

    def __init__(self, directory: CacheDirectory, key: str) -> None:
        self._directory, self._key = directory, key
        self._partial: Path | None = None
        self._descriptor = -1
        self._hash = hashlib.sha256()
        self._closed = False
        self._lock = Lock()  # a thread whose caller was cancelled may still write

    def write(self, block: bytes) -> bool:
        """Append; False, and without effect, when closed or when there is no room."""
        with self._lock:
            if self._closed:
                return False
            if self._partial is None:
                self._partial, self._descriptor = self._directory.create_partial(self._key)
            if not self._directory.reserve(len(block)):
                return False
            self._hash.update(block)
            write_all(self._descriptor, block)
            return True

    def read(self, start: int, end: int) -> bytes:
        """What was written from ``start`` to ``end``, or less."""
        with self._lock:
            return os.pread(self._descriptor, end - start, start)

    def finish(self) -> bool:
        """Give the file its name; False when what was written is not the whole object."""
        with self._lock:
            if self._closed or self._partial is None or self._hash.hexdigest() != digest_of(self._key):
                return False
            self._partial.replace(self._directory.path(self._key))
        self._directory.succeeded()
        return True

    def close(self) -> None:
        """Remove the file unless it got its name."""
        with self._lock:
            self._closed = True
            if self._partial is not None:
                os.close(self._descriptor)
                self._partial.unlink(missing_ok=True)
                self._partial = None


def write_all(descriptor: int, block: bytes) -> None:
    """Write at the file's position."""
    left = memoryview(block)
    while left:
        left = left[os.write(descriptor, left) :]


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
