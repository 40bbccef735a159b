"""Instances on their way out: fetched ahead within the budget, streamed when large; errors before the first byte."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import pytest
from pydicom.filereader import read_dataset

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.pixels.transcoder import Transcoder
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dimse_ingestion import outgoing as module
from imaging_services.apps.dimse_ingestion.outgoing import AHEAD, SMALL, Outbox, Outgoing
from imaging_services.domain.errors import BackendUnavailable, NotFound, PermanentError
from imaging_services.domain.manifest.query import InstanceLocation
from support.instances import EXPLICIT, encoded, instance, part10

IMPLICIT = "1.2.840.10008.1.2"


def location(number: int, size: int | None) -> InstanceLocation:
    return InstanceLocation(
        "1.1",
        "1.2",
        f"1.3.{number}",
        "1.4",
        EXPLICIT,
        "space",
        f"{number}.dcm",
        "b",
        size,
        None,
        None,
        datetime.now(UTC),
    )


class CountingStore(MemoryObjectStore):
    """Counts what is fetched whole, and how many at once."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    async def get(self, key, start=0, length=None):
        self.fetched.append(key)
        return await super().get(key, start, length)


async def read(data) -> bytes:
    return b"".join([block async for block in data()])


async def test_small_ones_are_fetched_ahead_and_large_ones_are_not():
    space = CountingStore()
    file = part10(instance())
    for number in range(10):
        await space.put(f"{number}.dcm", file)
    locations = [location(number, SMALL + 1 if number == 1 else len(file)) for number in range(10)]
    items = Outbox(space, None).in_order(locations)
    async with aclosing(items) as opened:
        first = await anext(opened)
        await asyncio.sleep(0)
        assert first.content == file
        assert set(space.fetched) <= {f"{number}.dcm" for number in range(AHEAD) if number != 1}
        assert len(space.fetched) <= AHEAD
        rest = [one async for one in opened]
    assert [one.location for one in [first, *rest]] == locations
    assert rest[0].content is None


async def test_the_budget_bounds_what_is_fetched_ahead(monkeypatch):
    space = CountingStore()
    for number in range(4):
        await space.put(f"{number}.dcm", b"x" * 1000)
    monkeypatch.setattr(module, "BUDGET", 2500)
    outbox = Outbox(space, None)
    async with aclosing(outbox.in_order([location(number, 1000) for number in range(4)])) as opened:
        first = await anext(opened)
        assert first.content is not None
        assert len(space.fetched) <= 2
    async with aclosing(outbox.in_order([location(number, 1000) for number in range(4)])) as opened:
        again = [one.content is not None async for one in opened]
    assert again[0]


async def test_a_data_set_is_read_as_it_is_stored_again_and_again():
    space, one = MemoryObjectStore(), instance(PixelData=bytes(3 * 1024 * 1024))
    await space.put("1.dcm", part10(one))
    data = await Outbox(space, None).data(Outgoing(location(1, None)), EXPLICIT)
    assert await read(data) == encoded(one)
    assert await read(data) == encoded(one)
    await data.close()


async def test_a_transcoded_data_set_is_read_whole_again_after_it_broke_off():
    space, one = MemoryObjectStore(), instance(PixelData=bytes(3 * 1024 * 1024))
    await space.put("1.dcm", part10(one))
    workers = PixelWorkers()
    try:
        data = await Outbox(space, Transcoder(space, workers)).data(Outgoing(location(1, None)), IMPLICIT)
        async with aclosing(data()) as blocks:
            await anext(blocks)  # the association breaks here, and another one is tried
        again = await read(data)
        assert read_dataset(BytesIO(again), True, True) == one
        assert await read(data) == again
        await data.close()
    finally:
        workers.close()


async def test_what_is_missing_is_known_before_the_first_byte():
    space = MemoryObjectStore()
    with pytest.raises(NotFound):
        await Outbox(space, None).data(Outgoing(location(1, None)), EXPLICIT)
    async with aclosing(Outbox(space, None).in_order([location(1, 10)])) as opened:
        (only,) = [one async for one in opened]
    with pytest.raises(NotFound):
        await Outbox(space, None).data(only, EXPLICIT)
    space.failure = BackendUnavailable("away")
    with pytest.raises(BackendUnavailable):
        await Outbox(space, None).data(Outgoing(location(1, None)), EXPLICIT)


async def test_nothing_is_transcoded_where_that_is_not_allowed():
    space = MemoryObjectStore()
    await space.put("1.dcm", part10(instance()))
    with pytest.raises(PermanentError, match="not to be transcoded"):
        await Outbox(space, None).data(Outgoing(replace(location(1, None))), IMPLICIT)
