"""What STOW-RS holds of a request: within bounds, whatever becomes of it."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

from imaging_services.adapters.files.spool import FileSpool, FileSpools
from imaging_services.adapters.memory.event_sink import MemoryEventSink
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.memory.spools import MemorySpools
from imaging_services.apps.dicomweb_ingestion import stow_parts
from imaging_services.apps.dicomweb_ingestion.stow_budget import Budget
from imaging_services.apps.dicomweb_ingestion.stow_parts import PartReceiver
from imaging_services.domain.dicom.multipart import MultipartParser
from imaging_services.domain.errors import Conflict, InvalidInput
from imaging_services.domain.ingest.ingest import Ingest
from imaging_services.domain.ingest.urgency import NOTHING_URGENT, UrgentSeries
from support.instances import instance, part10

LIMIT = 100_000


def receiver(budget: Budget) -> PartReceiver:
    ingest = Ingest(MemoryObjectStore(), MemoryEventSink(), MemorySpools(), provider="north", source="test")
    return PartReceiver(ingest, budget, study=None, concurrency=2, urgent=UrgentSeries(NOTHING_URGENT))


def cut_body() -> bytes:
    content = part10(instance(PixelData=bytes(LIMIT), Rows=500, Columns=100))
    return b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + content


async def test_a_cut_body_does_not_widen_the_memory_limit() -> None:
    budget = Budget(LIMIT)

    async def body() -> AsyncIterator[bytes]:
        yield cut_body()

    with pytest.raises(InvalidInput, match="cut"):
        await receiver(budget).receive(body(), MultipartParser("edge"))
    budget.hold(LIMIT)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(budget.available(), 0.01)


async def test_a_request_that_is_cancelled_in_the_middle_of_a_part_ends() -> None:
    budget, reading = Budget(LIMIT), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield cut_body()
        reading.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(receiver(budget).receive(body(), MultipartParser("edge")))
    await reading.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=30)
    assert done
    assert task.cancelled()
    budget.hold(LIMIT)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(budget.available(), 0.01)


def whole_body(count: int) -> bytes:
    parts = (b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + part10(instance()) + b"\r\n" for _ in range(count))
    return b"".join(parts) + b"--edge--\r\n"


async def test_a_request_has_no_more_than_so_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stow_parts, "MAX_PARTS", 2)
    taking = receiver(Budget(LIMIT))

    async def body() -> AsyncIterator[bytes]:
        yield whole_body(3)

    with pytest.raises(HTTPException) as refused:
        await taking.receive(body(), MultipartParser("edge"))
    assert refused.value.status_code == 413
    assert [outcome.error for outcome in taking.outcomes] == [None, None]


async def test_instances_that_were_refused_are_not_kept_until_the_answer(tmp_path: Path) -> None:
    spools: list[weakref.ref[FileSpool]] = []

    class Watched(FileSpools):
        @asynccontextmanager
        async def open(self) -> AsyncIterator[FileSpool]:
            async with super().open() as spool:
                spools.append(weakref.ref(spool))
                yield spool

    sink = MemoryEventSink()
    sink.failure = Conflict("the series belongs to another provider")
    ingest = Ingest(MemoryObjectStore(), sink, Watched(tmp_path), provider="north", source="test")
    taking = PartReceiver(ingest, Budget(LIMIT), study=None, concurrency=2, urgent=UrgentSeries(NOTHING_URGENT))

    async def body() -> AsyncIterator[bytes]:
        yield whole_body(3)

    await taking.receive(body(), MultipartParser("edge"))
    assert [type(outcome.error) for outcome in taking.outcomes] == [Conflict] * 3
    gc.collect()
    assert [spool() for spool in spools] == [None] * 3
