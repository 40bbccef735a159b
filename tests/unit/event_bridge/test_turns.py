"""A study revision goes on only after what came before it; a deletion too, and holds back what comes after."""

import asyncio

from imaging_services.apps.event_bridge.turns import Turns
from imaging_services.domain.events.envelope import (
    DICOM_AVAILABLE,
    IMAGE_DELETED,
    IMAGE_STORED,
    STUDY_REVISION,
    CloudEvent,
)


async def handled(turns: Turns, event_type: str, gate: asyncio.Event, done: list[str]) -> None:
    async with turns.turn(CloudEvent(event_type, "test", "1", b"{}")):
        await gate.wait()
        done.append(event_type)


async def test_a_revision_waits_for_what_was_begun_before_it_and_for_nothing_else() -> None:
    turns, gate, done = Turns(), asyncio.Event(), []
    free = asyncio.Event()
    free.set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(handled(turns, IMAGE_STORED, gate, done))
        await asyncio.sleep(0)
        tasks.create_task(handled(turns, STUDY_REVISION, free, done))
        await asyncio.sleep(0)
        later = tasks.create_task(handled(turns, IMAGE_STORED, free, done))
        await later
        assert done == [IMAGE_STORED]
        gate.set()
    assert done == [IMAGE_STORED, IMAGE_STORED, STUDY_REVISION]


async def test_one_that_failed_or_was_cancelled_holds_nothing_back() -> None:
    turns, gate, done = Turns(), asyncio.Event(), []
    first = asyncio.create_task(handled(turns, IMAGE_STORED, gate, done))
    await asyncio.sleep(0)
    gate_of_revision = asyncio.Event()
    gate_of_revision.set()
    second = asyncio.create_task(handled(turns, STUDY_REVISION, gate_of_revision, done))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait_for(second, 30)
    assert done == [STUDY_REVISION]


async def test_a_deletion_comes_between_what_is_before_and_what_is_behind_it() -> None:
    turns, gate, free, done = Turns(), asyncio.Event(), asyncio.Event(), []
    free.set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(handled(turns, IMAGE_STORED, gate, done))
        await asyncio.sleep(0)
        tasks.create_task(handled(turns, IMAGE_DELETED, free, done))
        await asyncio.sleep(0)
        later = tasks.create_task(handled(turns, DICOM_AVAILABLE, free, done))
        await asyncio.wait([later], timeout=0.05)
        assert done == []
        gate.set()
    assert done == [IMAGE_STORED, IMAGE_DELETED, DICOM_AVAILABLE]
