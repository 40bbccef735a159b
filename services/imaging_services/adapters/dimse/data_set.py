"""The data set of a message while it arrives, and the limit on how much of it may wait."""

import asyncio
from collections import deque
from collections.abc import Callable

from imaging_services.domain.errors import BackendUnavailable

PAUSE_ABOVE = 1024 * 1024
RESUME_BELOW = 512 * 1024
BLOCK_SIZE = 256 * 1024
_LARGE = 48 * 1024


class FlowControl:
    """Counts bytes that were received and not yet taken; stops reading from the peer above a limit."""

    __slots__ = ("_held", "_pause", "_resume", "paused")

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._held = 0
        self.paused = False

    def add(self, count: int) -> None:
        """Bytes have come."""
        self._held += count
        if self._held > PAUSE_ABOVE and not self.paused:
            self.paused = True
            self._pause()

    def take(self, count: int) -> None:
        """Bytes have been taken or dropped."""
        self._held -= count
        if self.paused and self._held < RESUME_BELOW:
            self.paused = False
            self._resume()


class IncomingDataSet:
    """A ``DataSetStream``: blocks of some 256 KiB while the association goes on receiving."""

    __slots__ = ("_blocks", "_discard", "_ended", "_flow", "_lost", "_size", "_waiter")

    def __init__(self, flow: FlowControl) -> None:
        self._flow = flow
        self._blocks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._lost: str | None = None
        self._discard = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """The last fragment has arrived, or none will."""
        return self._ended or self._lost is not None

    def feed(self, block: bytes) -> None:
        """Append what arrived; wakes the reader when a block is full."""
        if self._discard:
            return
        self._blocks.append(block)
        self._size += len(block)
        self._flow.add(len(block))
        if self._size >= BLOCK_SIZE:
            self._wake()

    def end(self) -> None:
        """The last fragment has been fed."""
        self._ended = True
        self._wake()

    def fail(self, why: str) -> None:
        """The association is lost: the reader gets ``BackendUnavailable``, at once."""
        if not self.ended:
            self._lost = why
            self._drop()
            self._wake()

    async def drain(self) -> None:
        """Drop the rest until its end. Raises ``BackendUnavailable`` when the association is lost before."""
        self._discard = True
        self._drop()
        while not self.ended:
            await self._wait()
        if self._lost is not None:
            raise BackendUnavailable(self._lost)

    def __aiter__(self) -> "IncomingDataSet":
        return self

    async def __anext__(self) -> bytes:
        if not self._size or (len(self._blocks[0]) < _LARGE and self._size < BLOCK_SIZE):
            while self._size < BLOCK_SIZE and not self.ended:
                await self._wait()
        if self._lost is not None:
            raise BackendUnavailable(self._lost)
        if not self._size:
            raise StopAsyncIteration
        block = self._next_block()
        self._size -= len(block)
        self._flow.take(len(block))
        return block

    def _next_block(self) -> bytes:
        # large blocks go on as they are, one copy from the receive buffer; many small ones are worth another
        block = self._blocks.popleft()
        if len(block) >= _LARGE or not self._blocks:
            return block
        small, size = [block], len(block)
        while self._blocks and size + len(self._blocks[0]) <= BLOCK_SIZE:
            small.append(self._blocks.popleft())
            size += len(small[-1])
        return b"".join(small)

    def _drop(self) -> None:
        self._blocks.clear()
        size, self._size = self._size, 0
        self._flow.take(size)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
