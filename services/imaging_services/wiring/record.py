"""Taking in events: many callers at once become batches, each recorded in one transaction."""

import asyncio
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import structlog
from prometheus_client import Counter, Histogram

from imaging_services.domain.errors import BackendUnavailable, ImagingError
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.ports import Manifest

log = structlog.get_logger(__name__)

_RECORDED = Counter("imaging_events_recorded_total", "Events taken in, by outcome", ["outcome"])
_BATCH = Histogram("imaging_record_batch_events", "Events in a transaction", buckets=(1, 2, 5, 10, 50, 100, 500, 5000))
_SECONDS = Histogram("imaging_record_batch_seconds", "Duration of a transaction, seconds")


@dataclass(slots=True)
class _Waiting:
    event: CloudEvent
    outcome: "asyncio.Future[None]"


class BatchRecorder:
    """Records what callers bring. A batch is what has come while the one before was being committed, so a single
    event waits for nobody and many share one commit. When that is as many as a batch may hold, the batch is read
    while the one before is being committed.

    ``recorded`` is set after each commit that may have queued events to publish.
    """

    def __init__(
        self, manifest: Manifest, recorded: asyncio.Event, *, batch_size: int, queue_size: int, queue_bytes: int
    ) -> None:
        self._manifest = manifest
        self._recorded = recorded
        self._batch_size = batch_size
        self._queue_size = queue_size
        self._queue_bytes = queue_bytes
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        # Events, not a condition: its lock costs each event several turns of the loop.
        self._arrived, self._freed = asyncio.Event(), asyncio.Event()
        self._closed = False
        self._under_way = 0
        self._latest: asyncio.Event | None = None  # the batch that was taken last is committed

    async def record(self, event: CloudEvent) -> None:
        """Return when the event is committed. Raises why it was refused (a PermanentError), or a RetryableError when
        it was not recorded. Waits while the queue is full."""
        while not self._closed and not self._has_room(event):
            self._freed.clear()
            await self._freed.wait()
        if self._closed:
            raise BackendUnavailable("recording is stopping")
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(event, outcome))
        self._bytes += len(event.data)
        if self._is_ready():
            self._arrived.set()
        await outcome

    def _has_room(self, event: CloudEvent) -> bool:
        if not self._queue:
            return True
        return len(self._queue) < self._queue_size and self._bytes + len(event.data) <= self._queue_bytes

    def _is_ready(self) -> bool:
        """There is a batch to begin with."""
        if self._under_way:
            return self._under_way == 1 and len(self._queue) >= self._batch_size
        return bool(self._queue)

    async def run(self) -> None:
        """Record batches until ``close`` is called and the queue is empty; cancelled, what waits has failed."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while batch := await self._next():
                    if len(batch) < self._batch_size:
                        await self._commit(batch)
                    else:
                        task = tasks.create_task(self._commit(batch))
                        self._under_way += 1
                        task.add_done_callback(self._one_less)
        finally:
            await self.close()
            self._fail(self._queue, BackendUnavailable("recording was stopped"))

    def _one_less(self, _: "asyncio.Task[None]") -> None:
        self._under_way -= 1
        self._arrived.set()

    async def close(self) -> None:
        """Take no more; ``run`` ends when everything taken is recorded."""
        self._closed = True
        self._arrived.set()
        self._freed.set()

    async def _next(self) -> list[_Waiting]:
        while not self._is_ready() and (self._queue or not self._closed):
            self._arrived.clear()
            await self._arrived.wait()
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._batch_size:
            one = self._queue.popleft()
            self._bytes -= len(one.event.data)
            batch.append(one)
        self._freed.set()
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        _BATCH.observe(len(batch))
        before, self._latest = self._latest, asyncio.Event()
        committed = self._latest
        turn = before.wait if before and not before.is_set() else None
        try:
            with _SECONDS.time():
                results = await self._manifest.record([one.event for one in batch], turn)
        except asyncio.CancelledError:
            self._fail(batch, BackendUnavailable("recording was stopped"))
            raise
        except ImagingError as error:
            log.warning("batch not recorded", events=len(batch), reason=str(error))
            self._fail(batch, error)
            return
        except Exception as error:
            log.exception("batch failed", events=len(batch))
            self._fail(batch, BackendUnavailable(f"recording failed: {type(error).__name__}"))
            return
        finally:
            committed.set()
        self._recorded.set()
        refused = sum(refusal is not None for refusal in results)
        for outcome, count in (("refused", refused), ("recorded", len(results) - refused)):
            if count:
                _RECORDED.labels(outcome).inc(count)
        for one, refusal in zip(batch, results, strict=True):
            if one.outcome.done():  # the caller has gone
                continue
            if refusal is None:
                one.outcome.set_result(None)
            else:
                one.outcome.set_exception(refusal)

    def _fail(self, batch: Collection[_Waiting], error: ImagingError) -> None:
        _RECORDED.labels("failed").inc(len(batch))
        for one in batch:
            if not one.outcome.done():
                one.outcome.set_exception(type(error)(str(error)))
