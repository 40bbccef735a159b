"""Publishing: at once when it has been quiet, together when much comes, all of it in the end."""

import asyncio

import pytest

from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.apps.event_driven_ingestion.publish import publish_queued
from support.manifest_events import stored


@pytest.fixture
async def publishing():
    """The manifest, the sizes of what was published, and how to tell that something is queued."""
    manifest, slices = MemoryManifest("edi"), []
    queued, stop = asyncio.Event(), asyncio.Event()

    async def publish(events):
        slices.append(len(events))

    async def record(number):
        await manifest.record([stored("1.2", "1.2.1", f"1.2.1.{number}")])
        queued.set()

    running = asyncio.create_task(publish_queued(manifest, publish, queued, stop, limit=16))
    yield record, slices, stop
    stop.set()
    await asyncio.wait_for(running, 30)


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_comes_within_moments_leaves_together(publishing):
    record, slices, _ = publishing
    await record(0)
    await until(lambda: slices == [2])
    for number in range(1, 6):
        await record(number)
        await asyncio.sleep(0)
    await until(lambda: sum(slices) == 12)
    assert len(slices) <= 3


async def test_more_than_a_slice_leaves_without_waiting(publishing):
    record, slices, _ = publishing
    for number in range(40):
        await record(number)
    await until(lambda: sum(slices) == 80)
    assert max(slices) == 16


async def test_what_is_queued_before_the_stop_is_published(publishing):
    record, slices, stop = publishing
    await record(0)
    stop.set()
    await until(lambda: sum(slices) == 2)
