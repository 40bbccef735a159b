"""A stored file that is read in pieces, as a file object for pydicom: only what is touched is fetched."""

from collections.abc import Callable, Sequence

BLOCK = 256 * 1024

Fetch = Callable[[int, int], bytes]
"""Reads bytes ``start`` to ``start + length`` of the file, or fewer at its end."""
FetchMany = Callable[[Sequence[int], int], list[bytes]]
"""The same for several starts, at once where that is possible."""


class RangeFile:
    """Random access over ranged reads. Blocking: belongs in a worker thread.

    ``head`` is what is already known of the file's beginning; behind it one block at a time is kept, and a read
    larger than a block is passed on as it is, so memory is bounded by the largest single read.
    """

    def __init__(
        self, head: bytes, size: int, fetch: Fetch, block: int = BLOCK, fetch_many: FetchMany | None = None
    ) -> None:
        self._head, self._size, self._fetch, self._block = head, size, fetch, block
        self._fetch_many = fetch_many
        self._cache, self._cache_start = b"", 0
        self._position = 0

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self._size

    def tell(self) -> int:
        """The position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset from the start (0), the position (1) or the end (2)."""
        base = (0, self._position, self._size)[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, length: int = -1) -> bytes:
        """Read up to ``length`` bytes (default: all that is left), fewer only at the end."""
        left = max(0, self._size - self._position)
        wanted = left if length is None or length < 0 else min(length, left)
        block = self.read_at(self._position, wanted)
        self._position += len(block)
        return block

    def read_at(self, start: int, length: int, *, ahead: int | None = None) -> bytes:
        """Read without moving. ``ahead``: how many bytes to fetch at least, when any; by default a block."""
        if start + length <= len(self._head):
            return self._head[start : start + length]
        if self._cache_start <= start and start + length <= self._cache_start + len(self._cache):
            return self._cache[start - self._cache_start : start - self._cache_start + length]
        if length <= 0:
            return b""
        wanted = max(length, self._block if ahead is None else ahead)
        fetched = self._fetch(start, min(wanted, self._size - start))
        if len(fetched) <= 2 * self._block:
            self._cache, self._cache_start = fetched, start
        return fetched[:length]

    def read_many(self, starts: Sequence[int], length: int) -> list[bytes]:
        """Read ``length`` bytes at each start, none beyond: for heads that lie far apart."""
        outside = [start for start in starts if start + length > len(self._head)]
        if self._fetch_many is None:
            fetched = [self._fetch(start, length) for start in outside]
        else:
            fetched = self._fetch_many(outside, length) if outside else []
        known = dict(zip(outside, fetched, strict=True))
        return [known[start] if start in known else self._head[start : start + length] for start in starts]

    def close(self) -> None:
        """Drop what is kept."""
        self._head = self._cache = b""
