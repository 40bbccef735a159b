"""Several callers that want the same at the same time get it by one reading."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class _Read:
    task: "asyncio.Future[bytes]"
    waiting: int = 0


class SharedReads:
    """Readings under way. One ends early when everybody who waited for it has gone away."""

    def __init__(self) -> None:
        self._reads: dict[Hashable, _Read] = {}

    async def read(self, key: Hashable, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """The result of ``work``, or of the same that another caller has begun. Raises what it raises."""
        shared = self._reads.get(key)
        if shared is None:
            shared = self._reads[key] = _Read(asyncio.ensure_future(work()))
            shared.task.add_done_callback(lambda _: self._forget(key, shared))
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                self._forget(key, shared)
                shared.task.cancel()
                await asyncio.gather(shared.task, return_exceptions=True)

    def _forget(self, key: Hashable, shared: "_Read | None") -> None:
        if self._reads.get(key) is shared:
            del self._reads[key]
        if shared is not None and shared.task.done() and not shared.task.cancelled():
            shared.task.exception()  # everybody who waited may have gone away
