"""What every queue of jobs does, the one over NATS and its twin in memory."""

import asyncio
import uuid
from contextlib import asynccontextmanager

import pytest

from imaging_services.adapters.memory.jobs import MemoryJobs
from imaging_services.adapters.nats.jobs import NatsJobs
from imaging_services.domain.errors import BackendUnavailable, Conflict, InvalidInput, OutOfResources
from imaging_services.domain.jobs import RETRY_DELAYS, Job, Jobs, NotYet
from support.relay import nats_relay, relay_settings, until

PATIENCE = 0.05
LIMIT = 5


@pytest.fixture(params=["memory", "nats"])
async def jobs(request):
    if request.param == "memory":
        yield MemoryJobs(patience=PATIENCE, limit=LIMIT)
        return
    settings = relay_settings(request.getfixturevalue("nats_server").url, "B", f"t{uuid.uuid4().hex}")
    async with nats_relay(settings) as relay:
        yield NatsJobs("test", settings, relay.client, relay.first_client, patience=PATIENCE, limit=LIMIT)


class Doing:
    """Does jobs; raises the next of ``failures`` first."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.taken: list[Job] = []
        self.done: list[bytes] = []

    async def __call__(self, job: Job) -> None:
        self.taken.append(job)
        if self.failures:
            raise self.failures.pop(0)
        self.done.append(job.body)


@asynccontextmanager
async def working(jobs: Jobs, handler):
    task = asyncio.create_task(jobs.work(handler))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_jobs_wait_for_a_worker_and_are_done_once(jobs):
    await jobs.put("one", b"1")
    await jobs.put("two", b"2")
    doing = Doing()
    async with working(jobs, doing):
        await until(lambda: len(doing.done) == 2)
        await jobs.put("three", b"3")
        await until(lambda: len(doing.done) == 3)
    assert sorted(doing.done) == [b"1", b"2", b"3"]
    assert {job.tries for job in doing.taken} == {1}


async def test_a_key_is_free_again_when_its_job_is_done(jobs):
    await jobs.put("one", b"1")
    with pytest.raises(Conflict):
        await jobs.put("one", b"again")
    doing = Doing()
    async with working(jobs, doing):
        await until(lambda: doing.done == [b"1"])
        await put_when_free(jobs, "one", b"again")
        await until(lambda: doing.done == [b"1", b"again"])


async def test_what_fails_for_now_is_tried_again_and_the_rest_is_dropped(jobs):
    doing = Doing(BackendUnavailable("away"), ValueError("unforeseen"), InvalidInput("never"))
    await jobs.put("one", b"1")
    async with working(jobs, doing):
        await until(lambda: len(doing.taken) == 3)
        assert [job.tries for job in doing.taken] == [1, 2, 3]
        assert len({job.accepted_at for job in doing.taken}) == 1
        await put_when_free(jobs, "one", b"2")
        await until(lambda: doing.done == [b"2"])


async def test_a_job_whose_turn_it_was_not_has_not_been_tried(jobs):
    doing = Doing(*[NotYet("full")] * 4, BackendUnavailable("away"))
    times = []

    async def do(job: Job) -> None:
        times.append(asyncio.get_running_loop().time())
        await doing(job)

    await jobs.put("one", b"1")
    async with working(jobs, do):
        await until(lambda: doing.done == [b"1"])
    assert [job.tries for job in doing.taken] == [1, 2, 3, 4, 5, 6]
    # after the first failure as after a first try, not as after a fifth
    assert times[5] - times[4] < RETRY_DELAYS[4] * PATIENCE / 2


async def test_no_more_are_taken_than_may_wait(jobs):
    for number in range(LIMIT):
        await jobs.put(str(number), b"1")
    with pytest.raises(OutOfResources):
        await jobs.put("one more", b"1")


async def test_a_worker_that_stops_gives_its_job_back(jobs):
    begun = asyncio.Event()

    async def never_ends(job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    await jobs.put("one", b"1")
    async with working(jobs, never_ends):
        await asyncio.wait_for(begun.wait(), 30)
    doing = Doing()
    async with working(jobs, doing):
        await until(lambda: doing.done == [b"1"])


async def put_when_free(jobs: Jobs, key: str, body: bytes) -> None:
    """The acknowledgement of the job before may still be on its way."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await jobs.put(key, body)
            except Conflict:
                await asyncio.sleep(0.01)
