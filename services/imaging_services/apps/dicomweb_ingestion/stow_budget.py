"""What the memory of a service allows STOW-RS to hold at once."""

import asyncio


class Budget:
    """Bytes of instances in memory over all requests; whoever comes when it is spent waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = asyncio.Condition()

    async def available(self) -> None:
        """Wait until there is room for one more instance."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held < self._limit)

    def hold(self, size: int) -> None:
        """Count bytes that have been received."""
        self._held += size

    async def release(self, size: int) -> None:
        """They are stored or given up."""
        async with self._changed:
            self._held -= size
            self._changed.notify_all()
