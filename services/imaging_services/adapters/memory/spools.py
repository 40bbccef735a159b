"""Spools that keep everything in memory, for tests and for trying things out."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager


class MemorySpool:
    """Twin of ``FileSpool`` without its file."""

    def __init__(self) -> None:
        self._content = bytearray()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return len(self._content)

    async def write(self, block: bytes) -> None:
        """Append."""
        self._content += block

    async def body(self) -> bytes:
        """All that was written."""
        return bytes(self._content)

    async def digest(self) -> str:
        """Lower-case hex SHA-256 of all that was written."""
        return hashlib.sha256(self._content).hexdigest()


class MemorySpools:
    """Twin of ``FileSpools``; ``open_spools`` counts those in use."""

    def __init__(self) -> None:
        self.open_spools = 0

    def open(self) -> AbstractAsyncContextManager[MemorySpool]:
        """A new spool."""
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[MemorySpool]:
        self.open_spools += 1
        try:
            yield MemorySpool()
        finally:
            self.open_spools -= 1
