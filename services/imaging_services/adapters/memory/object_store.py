"""A storage space in memory, for tests and for trying things out."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from imaging_services.domain.errors import NotFound
from imaging_services.domain.ports import ObjectInfo

BLOCK_SIZE = 1024 * 1024


class MemoryObjectStore:
    """Twin of the ``ObjectStore`` adapters. ``objects`` may be looked into; set ``failure`` to have every call fail."""

    def __init__(self, bucket_name: str | None = "memory") -> None:
        self._bucket_name = bucket_name
        self.objects: dict[str, bytes] = {}
        self.puts = 0
        self.failure: Exception | None = None
        self._changed: dict[str, datetime] = {}

    @property
    def bucket_name(self) -> str | None:
        """The name that events report."""
        return self._bucket_name

    async def put(self, key: str, body: bytes | Path) -> None:
        """Write an object."""
        self._fail()
        content = body if isinstance(body, bytes) else await asyncio.to_thread(body.read_bytes)
        self.puts += 1
        self.objects[key] = content
        self._changed[key] = datetime.now(UTC)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read a range."""
        self._fail()
        if key not in self.objects:
            raise NotFound(f"no object {key}")
        return self.objects[key][start : None if length is None else start + length]

    async def stream(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Read as blocks."""
        content = await self.get(key, start, length)
        for position in range(0, len(content), BLOCK_SIZE):
            yield content[position : position + BLOCK_SIZE]

    async def head(self, key: str) -> ObjectInfo | None:
        """Size and time, or None."""
        self._fail()
        return self._info(key) if key in self.objects else None

    async def delete(self, key: str) -> None:
        """Remove an object; absent is fine."""
        self._fail()
        self.objects.pop(key, None)

    async def list(self, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every object in order."""
        self._fail()
        for key in sorted(self.objects):
            if key > after:
                yield self._info(key)

    async def check(self) -> None:
        """Raise when the space is set to fail."""
        self._fail()

    async def close(self) -> None:
        """Nothing to give back."""

    def _info(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.objects[key]), self._changed[key])

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
