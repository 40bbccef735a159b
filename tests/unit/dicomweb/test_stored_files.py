"""Stored files that are read in threads, and deflated ones in memory: both bounded for the whole process."""

import asyncio
import gc
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.dicom.part10 import file_meta
from imaging_services.domain.dicom.transfer_syntaxes import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
from imaging_services.domain.errors import BackendUnavailable, OutOfResources, PermanentError
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.retrieve import inflation
from imaging_services.domain.retrieve.inflation import inflated
from imaging_services.domain.retrieve.inspection import Fetches, Inspections
from imaging_services.domain.retrieve.stored_file import StoredFile
from support.pixels import an_image, stored

SIZE = 5 * 1024 * 1024


async def location_of(store: MemoryObjectStore) -> InstanceLocation:
    return (await stored(an_image(np.zeros((1, 4, 4), np.uint8)), store))[1]


class Threaded:
    """A storage space that reads in the event loop's own threads, as a folder does."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def get(self, _name: str, start: int = 0, length: int | None = None) -> bytes:
        end = len(self._content) if length is None else start + length
        return await asyncio.to_thread(lambda: self._content[start:end])


async def test_reading_needs_no_thread_that_waits_for_it() -> None:
    """With a single thread of the loop, and as many readers as there may be."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    store: Any = Threaded(bytes(SIZE))
    files = [StoredFile(store, await location_of(MemoryObjectStore()), SIZE) for _ in range(40)]
    ends = await asyncio.wait_for(
        asyncio.gather(*(file.inspect(lambda content: content.read_at(SIZE - 10, 10)) for file in files)), 30
    )
    assert ends == [bytes(10)] * 40


async def test_only_so_much_work_waits() -> None:
    inspections, going = Inspections(threads=1, waiting=1), Event()
    running = [asyncio.create_task(inspections.run(lambda _: going.wait(60))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OutOfResources, match="too many stored files"):
        await inspections.run(lambda _: None)
    going.set()
    await asyncio.gather(*running)
    assert await inspections.run(lambda _: 5) == 5


async def test_work_that_nobody_waits_for_ends_with_its_next_fetch() -> None:
    inspections, begun, cancelled, ended = Inspections(1), asyncio.Event(), Event(), asyncio.Event()
    loop, errors = asyncio.get_running_loop(), []

    async def fetch() -> bytes:
        return b""

    def work(fetches: Fetches) -> None:
        loop.call_soon_threadsafe(begun.set)
        cancelled.wait(60)
        try:
            fetches.get(fetch())
        except BackendUnavailable as error:
            errors.append(error)
        loop.call_soon_threadsafe(ended.set)

    task = asyncio.create_task(inspections.run(work))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    cancelled.set()
    await asyncio.wait_for(ended.wait(), 60)
    assert errors


async def deflated(store: MemoryObjectStore, data_set: bytes) -> InstanceLocation:
    """Replace an instance by one with this data set, deflated."""
    location = await location_of(store)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    meta = file_meta(
        sop_class_uid=location.sop_class_uid,
        sop_instance_uid=location.sop_instance_uid,
        transfer_syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    )
    store.objects[location.object_name] = meta + packer.compress(data_set) + packer.flush()
    return location


@pytest.mark.parametrize("data_set", [bytes(SIZE), bytes(range(256)) * 4096, b"x"], ids=["zeros", "cycles", "short"])
async def test_deflated_bytes_are_counted_as_long_as_they_are_held(data_set: bytes) -> None:
    store, budget = MemoryObjectStore(), ByteBudget(SIZE)
    location = await deflated(store, data_set)
    content = await inflated(store, location, budget)
    assert content.endswith(data_set)
    assert len(content) - len(data_set) < 1024
    assert not budget.try_take(SIZE - len(data_set) + 1)
    file = StoredFile(store, location, len(content), content)
    del content
    assert await file.get(file.size - 1, 10) == data_set[-1:]
    del file
    gc.collect()
    assert budget.try_take(SIZE)


async def test_deflated_data_sets_that_are_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store, budget = MemoryObjectStore(), ByteBudget(SIZE - 1)
    location = await deflated(store, bytes(SIZE))
    with pytest.raises(OutOfResources, match="too many deflated"):
        await inflated(store, location, budget)
    assert budget.try_take(SIZE - 1)
    monkeypatch.setattr(inflation, "INFLATED_LIMIT", SIZE - 1)
    with pytest.raises(PermanentError, match="too long"):
        await inflated(store, location)
