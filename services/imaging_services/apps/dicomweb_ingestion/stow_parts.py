"""Taking in the parts of a STOW-RS request: one is received at a time, several are being stored."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from imaging_services.apps.dicomweb_ingestion.stow_budget import Budget
from imaging_services.apps.dicomweb_ingestion.stow_form import PartParser
from imaging_services.apps.dicomweb_ingestion.stow_outcome import Outcome, report
from imaging_services.domain.dicom.media_types import DICOM, parse_media_type
from imaging_services.domain.dicom.multipart import PartEvent, PartStart
from imaging_services.domain.dicom.part10 import Part10Stream
from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import ImagingError, InvalidInput, NotDicom
from imaging_services.domain.ingest.ingest import Expected, Ingest, Ingested
from imaging_services.domain.ingest.urgency import UrgentSeries

QUEUED_BLOCKS = 4
"""Blocks of one part between the connection and the spool; then the connection is not read."""
MAX_PARTS = 100_000
"""Most instances of a request: the response tells of each."""


class PartStream:
    """A part while it is received: the parser pushes its blocks, the ingest iterates over them."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | ImagingError | None] = asyncio.Queue(QUEUED_BLOCKS)
        self._ended = False
        self.size = 0
        self.held = 0
        """Bytes of it that the budget counts."""

    async def push(self, item: bytes | ImagingError | None) -> None:
        """Hand over a block, None after the last one, or why there will be no last one; waits while full."""
        if isinstance(item, bytes):
            self.size += len(item)
        await self._queue.put(item)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._ended:
            item = await self._queue.get()
            if isinstance(item, bytes):
                yield item
                continue
            self._ended = True
            if item is not None:
                raise item

    async def drain(self) -> None:
        """Throw the rest of a refused part away, so that the next one can be received."""
        while not self._ended:
            self._ended = not isinstance(await self._queue.get(), bytes)


class PartReceiver:
    """Receives the parts of one request and stores each as an instance."""

    def __init__(
        self, ingest: Ingest, budget: Budget, *, study: str | None, concurrency: int, urgent: UrgentSeries
    ) -> None:
        self._ingest = ingest
        self._urgent = urgent
        self._budget = budget
        self._expected = Expected(study_instance_uid=study)
        self._turns = asyncio.Semaphore(concurrency)
        self._open: PartStream | None = None
        self.outcomes: list[Outcome] = []

    async def receive(self, blocks: AsyncIterable[bytes], parser: PartParser) -> None:
        """Store every part. On a malformed or cut body raises ``InvalidInput``, or what ``blocks`` raises, after the
        parts that had come whole are stored; ``outcomes`` tells of them in any case."""
        broken: Exception | None = None
        async with asyncio.TaskGroup() as tasks:
            try:
                async for block in blocks:
                    for event in parser.feed(block):
                        await self._take(event, tasks)
                for event in parser.close():
                    await self._take(event, tasks)
            except (ImagingError, HTTPException, ClientDisconnect) as error:
                broken = error
                if self._open is not None:
                    await self._open.push(InvalidInput("the part is cut before its end"))
        if broken is not None:
            raise broken

    async def _take(self, event: PartEvent, tasks: asyncio.TaskGroup) -> None:
        if isinstance(event, PartStart):
            if len(self.outcomes) >= MAX_PARTS:
                raise HTTPException(413, f"more than {MAX_PARTS} instances in one request")
            await self._budget.available()
            await self._turns.acquire()
            self._open = PartStream()
            self.outcomes.append(Outcome())
            tasks.create_task(self._store(event, self._open, self.outcomes[-1]))
            return
        assert self._open is not None  # the parser opens a part before its data
        if isinstance(event, bytes):
            await self._open.push(event)
        else:
            part, self._open = self._open, None
            part.held = part.size
            self._budget.hold(part.held)
            await part.push(None)

    async def _store(self, start: PartStart, part: PartStream, outcome: Outcome) -> None:
        try:
            try:
                outcome.ingested = await self._store_data_set(start, part, outcome)
            except Exception as error:  # noqa: BLE001 - the response tells of each instance
                report(outcome, error)
            finally:
                self._turns.release()
            await part.drain()  # not when cancelled: nobody ends the part then
        finally:
            await self._budget.release(part.held)

    async def _store_data_set(self, start: PartStart, part: PartStream, outcome: Outcome) -> Ingested:
        media_type = parse_media_type(start.headers.get("content-type") or DICOM)
        if media_type.type != DICOM:
            raise NotDicom(f"a part of type {media_type.type[:80]} is not an instance")
        declared = media_type.transfer_syntax
        file = Part10Stream(aiter(part))
        transfer_syntax = await file.open(declared if declared and is_uid(declared) else None)
        return await self._ingest.receive(
            file,
            transfer_syntax=transfer_syntax,
            expected=self._expected,
            identified=outcome.identify,
            inspect=outcome.inspect,
            is_urgent=self._urgent.is_urgent,
        )
