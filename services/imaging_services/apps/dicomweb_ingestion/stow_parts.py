"""Taking in the parts of a STOW-RS request: one is received at a time, several are being stored."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from imaging_services.domain.dicom.media_types import DICOM, parse_media_type
from imaging_services.domain.dicom.multipart import MultipartParser, PartEvent, PartStart
from imaging_services.domain.dicom.part10 import Part10Stream
from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import ImagingError, InvalidInput, NotDicom, answer_for
from imaging_services.domain.ingest.ingest import Expected, Ingest, Ingested

log = structlog.get_logger(__name__)

QUEUED_BLOCKS = 4
"""Blocks of one part between the connection and the spool; then the connection is not read."""


@dataclass(slots=True)
class Outcome:
    """What became of one part: the stored instance, or the error and, if they could be read, the SOP UIDs."""

    ingested: Ingested | None = None
    error: BaseException | None = None
    sop_class_uid: str = ""
    sop_instance_uid: str = ""

    def identify(self, sop_class_uid: str, sop_instance_uid: str) -> None:
        """Remember the UIDs of the data set."""
        self.sop_class_uid, self.sop_instance_uid = sop_class_uid, sop_instance_uid


class Budget:
    """Bytes of instances in memory over all requests; whoever comes when it is spent waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = asyncio.Condition()

    async def available(self) -> None:
        """Wait until there is room for one more instance."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held < self._limit)

    def hold(self, size: int) -> None:
        """Count bytes that have been received."""
        self._held += size

    async def release(self, size: int) -> None:
        """They are stored or given up."""
        async with self._changed:
            self._held -= size
            self._changed.notify_all()


class PartStream:
    """A part while it is received: the parser pushes its blocks, the ingest iterates over them."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | ImagingError | None] = asyncio.Queue(QUEUED_BLOCKS)
        self._ended = False
        self.size = 0

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

    def __init__(self, ingest: Ingest, budget: Budget, *, study: str | None, concurrency: int) -> None:
        self._ingest = ingest
        self._budget = budget
        self._expected = Expected(study_instance_uid=study)
        self._turns = asyncio.Semaphore(concurrency)
        self._open: PartStream | None = None
        self.outcomes: list[Outcome] = []

    async def receive(self, blocks: AsyncIterable[bytes], boundary: str) -> None:
        """Store every part. On a malformed or cut body raises ``InvalidInput``, or what ``blocks`` raises, after the
        parts that had come whole are stored; ``outcomes`` tells of them in any case."""
        parser = MultipartParser(boundary)
        broken: Exception | None = None
        async with asyncio.TaskGroup() as tasks:
            try:
                async for block in blocks:
                    for event in parser.feed(block):
                        await self._take(event, tasks)
                parser.close()
            except (ImagingError, HTTPException, ClientDisconnect) as error:
                broken = error
                if self._open is not None:
                    await self._open.push(InvalidInput("the part is cut before its end"))
        if broken is not None:
            raise broken

    async def _take(self, event: PartEvent, tasks: asyncio.TaskGroup) -> None:
        if isinstance(event, PartStart):
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
            self._budget.hold(part.size)
            await part.push(None)

    async def _store(self, start: PartStart, part: PartStream, outcome: Outcome) -> None:
        try:
            outcome.ingested = await self._store_data_set(start, part, outcome)
        except ImagingError as error:
            outcome.error = error
            log.warning("instance not stored", sop_instance_uid=outcome.sop_instance_uid, **_reason(error))
        except Exception as error:
            outcome.error = error
            log.exception("instance not stored", sop_instance_uid=outcome.sop_instance_uid)
        finally:
            self._turns.release()
            await part.drain()
            await self._budget.release(part.size)

    async def _store_data_set(self, start: PartStart, part: PartStream, outcome: Outcome) -> Ingested:
        media_type = parse_media_type(start.headers.get("content-type") or DICOM)
        if media_type.type != DICOM:
            raise NotDicom(f"a part of type {media_type.type[:80]} is not an instance")
        declared = media_type.transfer_syntax
        file = Part10Stream(aiter(part))
        transfer_syntax = await file.open(declared if declared and is_uid(declared) else None)
        return await self._ingest.receive(
            file, transfer_syntax=transfer_syntax, expected=self._expected, identified=outcome.identify
        )


def _reason(error: ImagingError) -> dict[str, str]:
    return {"error": type(error).__name__, "reason": str(error), "failure_reason": f"{answer_for(error).stow:04X}H"}
