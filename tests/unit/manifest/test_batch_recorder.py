"""Batches: nobody waits for others, each gets its own answer, the queue is bounded."""

import asyncio

import pytest

from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.domain.errors import BackendUnavailable, Conflict, OutOfResources
from imaging_services.wiring.record import BatchRecorder
from support.events import eventually
from support.manifest_events import stored


class SlowManifest(MemoryManifest):
    """Counts batches; commits when allowed."""

    def __init__(self) -> None:
        super().__init__("edi")
        self.batches: list[int] = []
        self.steps: list[str] = []
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def record(self, events, turn=None):
        number = len(self.batches)
        self.batches.append(len(events))
        self.steps.append(f"read {number}")
        if turn:
            await turn()
        self.steps.append(f"commit {number}")
        await self.go.wait()
        if self.failure:
            failure, self.failure = self.failure, None
            raise failure
        return await super().record(events)


@pytest.fixture
async def recording():
    manifest, recorded = SlowManifest(), asyncio.Event()
    recorder = BatchRecorder(manifest, recorded, batch_size=10, queue_size=20, queue_bytes=10**6)
    running = asyncio.create_task(recorder.run())
    yield manifest, recorder, recorded
    manifest.go.set()
    await recorder.close()
    await asyncio.wait_for(running, 30)


def events(count):
    return [stored("1.2", "1.2.1", f"1.2.1.{number}") for number in range(count)]


async def test_what_comes_during_a_commit_is_the_next_batch(recording):
    manifest, recorder, recorded = recording
    calls = [asyncio.create_task(recorder.record(event)) for event in events(16)]
    await eventually(lambda: len(manifest.batches) == 1)
    assert not recorded.is_set()
    manifest.go.set()
    await asyncio.gather(*calls)
    assert sum(manifest.batches) == 16
    assert len(manifest.batches) <= 3
    assert recorded.is_set()


async def test_each_caller_gets_its_own_answer(recording):
    manifest, recorder, _ = recording
    manifest.go.set()
    good, bad = stored("1.2", "1.2.1", "1.2.1.1"), stored("1.2", "1.2.1", "1.2.1.2", provider="south")
    first, second = await asyncio.gather(recorder.record(good), recorder.record(bad), return_exceptions=True)
    assert first is None
    assert isinstance(second, Conflict)


async def test_a_failed_batch_fails_its_callers_and_the_next_one_goes_on(recording):
    manifest, recorder, recorded = recording
    manifest.go.set()
    for failure, expected in ((OutOfResources("full"), OutOfResources), (RuntimeError("bug"), BackendUnavailable)):
        manifest.failure = failure
        with pytest.raises(expected):
            await recorder.record(events(1)[0])
    assert not recorded.is_set()
    await recorder.record(events(1)[0])


async def test_full_batches_are_committed_in_their_order(recording):
    manifest, recorder, _ = recording
    calls = [asyncio.create_task(recorder.record(event)) for event in events(9)]
    await eventually(lambda: manifest.batches == [9])
    calls += [asyncio.create_task(recorder.record(event)) for event in events(39)[9:]]
    await eventually(lambda: len(recorder._queue) == 20)
    assert manifest.steps == ["read 0", "commit 0"]
    manifest.go.set()
    await asyncio.gather(*calls)
    assert manifest.batches == [9, 10, 10, 10]
    assert [step for step in manifest.steps if "commit" in step] == [f"commit {number}" for number in range(4)]


async def test_a_full_batch_is_read_while_the_one_before_is_committed(recording):
    manifest, recorder, _ = recording
    calls = [asyncio.create_task(recorder.record(event)) for event in events(40)]
    await eventually(lambda: len(recorder._queue) == 20)
    assert manifest.steps == ["read 0", "commit 0", "read 1"]
    manifest.failure = OutOfResources("full")  # of the first alone
    manifest.go.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, OutOfResources) for one in results] == [True] * 10 + [False] * 30
    assert results[10:] == [None] * 30


async def test_what_is_under_way_or_waits_when_it_is_stopped_has_failed():
    manifest = SlowManifest()
    recorder = BatchRecorder(manifest, asyncio.Event(), batch_size=10, queue_size=20, queue_bytes=10**6)
    running = asyncio.create_task(recorder.run())
    calls = [asyncio.create_task(recorder.record(event)) for event in events(60)]
    await eventually(lambda: len(manifest.batches) == 2 and len(recorder._queue) == 20)
    running.cancel()
    async with asyncio.timeout(60):
        results = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(BackendUnavailable):
            await recorder.record(events(1)[0])
    assert {type(one) for one in results} == {BackendUnavailable}


async def test_a_full_queue_makes_callers_wait(recording):
    manifest, recorder, _ = recording
    calls = [asyncio.create_task(recorder.record(event)) for event in events(60)]
    await eventually(lambda: len(recorder._queue) == 20)
    manifest.go.set()
    await asyncio.gather(*calls)
    assert (await manifest.counts()).instances == 60


async def test_a_caller_that_goes_away_harms_nobody(recording):
    manifest, recorder, _ = recording
    calls = [asyncio.create_task(recorder.record(event)) for event in events(40)]
    await eventually(lambda: len(recorder._queue) == 20)
    for call in calls[::2]:
        call.cancel()
    manifest.go.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[1::2] == [None] * 20


async def test_closing_refuses_the_late_and_finishes_the_rest():
    manifest = SlowManifest()
    recorder = BatchRecorder(manifest, asyncio.Event(), batch_size=10, queue_size=20, queue_bytes=10**6)
    running = asyncio.create_task(recorder.run())
    call = asyncio.create_task(recorder.record(events(1)[0]))
    await eventually(lambda: manifest.batches)
    await recorder.close()
    with pytest.raises(BackendUnavailable):
        await recorder.record(events(2)[1])
    manifest.go.set()
    await asyncio.gather(call, running)
