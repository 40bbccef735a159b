"""Jobs in memory, for a process without NATS: those that are not done when it ends are lost."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from imaging_services.domain.errors import Conflict, OutOfResources, is_retryable
from imaging_services.domain.jobs import Job, JobHandler, NotYet, delay_after

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Waiting:
    key: str
    body: bytes
    accepted_at: datetime
    tries: int = 0
    put_off: int = 0


class MemoryJobs:
    """Twin of ``adapters/nats/jobs.py``. At most ``limit`` jobs wait or are being done, ``concurrency`` at a time."""

    def __init__(self, *, limit: int = 10_000, concurrency: int = 4, patience: float = 1.0) -> None:
        self._limit, self._concurrency, self._patience = limit, concurrency, patience
        self._keys: set[str] = set()
        self._due: asyncio.Queue[_Waiting] = asyncio.Queue()

    async def put(self, key: str, body: bytes) -> None:
        """See ``Jobs.put``."""
        if key in self._keys:
            raise Conflict("a job of the same key is not done yet")
        if len(self._keys) >= self._limit:
            raise OutOfResources(f"{self._limit} jobs wait already")
        self._keys.add(key)
        self._due.put_nowait(_Waiting(key, body, datetime.now(UTC)))

    async def work(self, handler: JobHandler) -> None:
        """See ``Jobs.work``."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._concurrency):
                tasks.create_task(self._worker(handler, tasks))

    async def _worker(self, handler: JobHandler, tasks: asyncio.TaskGroup) -> None:
        while True:
            waiting = await self._due.get()
            waiting.tries += 1
            try:
                await handler(Job(waiting.body, waiting.tries, waiting.accepted_at))
            except asyncio.CancelledError:
                self._due.put_nowait(waiting)
                raise
            except Exception as error:  # noqa: BLE001 - whatever the handler raises is settled here, by its type
                if is_retryable(error):
                    log.warning("job will be tried again", tries=waiting.tries, error=repr(error))
                    waiting.put_off += isinstance(error, NotYet)
                    tasks.create_task(self._again(waiting, delay_after(waiting.tries, error, waiting.put_off)))
                    continue
                log.error("job dropped", tries=waiting.tries, error=repr(error))
            self._keys.discard(waiting.key)

    async def _again(self, waiting: _Waiting, delay: float) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(delay * self._patience)
        self._due.put_nowait(waiting)
