"""Jobs for AEs: those for one that is away or slow hold the others up no longer than a moment."""

import asyncio
from collections.abc import Callable

import pytest

from imaging_services.adapters.memory.jobs import MemoryJobs
from imaging_services.apps.dimse_ingestion.lanes import Lanes
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.domain.jobs import RETRY_DELAYS, Job, NotYet, delay_after


def test_an_ae_has_so_many_places_and_others_have_their_own() -> None:
    lanes = Lanes(2)
    with lanes.of("A"), lanes.of("A"):
        with pytest.raises(NotYet), lanes.of("A"):
            pass
        with lanes.of("B"):
            pass
    with lanes.of("A"), lanes.of("A"):
        pass


def test_an_ae_that_was_away_is_tried_by_one_job_at_a_time() -> None:
    lanes = Lanes(3)
    with pytest.raises(ValueError, match="away"), lanes.of("A") as lane, lane.trying():
        raise ValueError("away")
    with lanes.of("A") as lane:
        with pytest.raises(NotYet, match="being tried"), lanes.of("A"):
            pass
        with lane.trying():
            pass
        with lanes.of("A"), lanes.of("A"):
            pass


def test_the_turn_of_a_job_comes_soon_however_often_it_was_put_off() -> None:
    assert delay_after(100, NotYet("full")) == 15
    assert delay_after(1, NotYet("full")) == delay_after(1) == RETRY_DELAYS[0]
    assert delay_after(100, BackendUnavailable("away")) == RETRY_DELAYS[-1]


async def test_a_dead_ae_with_many_jobs_does_not_hold_the_others_up() -> None:
    jobs, lanes, reached = MemoryJobs(concurrency=6, patience=0.01), Lanes(2), list[str]()
    forever = asyncio.Event()

    async def do(job: Job) -> None:
        title = job.body.decode()
        with lanes.of(title) as lane, lane.trying():
            if title.startswith("DEAD"):
                await forever.wait()
            reached.append(title)

    for number in range(40):
        await jobs.put(f"dead {number}", f"DEAD{number % 2}".encode())
    for number in range(5):
        await jobs.put(f"other {number}", b"OTHER")
    working = asyncio.create_task(jobs.work(do))
    try:
        await soon(lambda: reached == ["OTHER"] * 5)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
