"""Asynchronous moves: what is kept of a request, and when a job is done, tried again or given up."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from imaging_services.apps.dimse_ingestion.asked import Asked
from imaging_services.apps.dimse_ingestion.move_jobs import MoveJobs
from imaging_services.apps.dimse_ingestion.sub_operations import Counts
from imaging_services.domain.dicom.command_set import MOVE_DESTINATION, CommandField, request
from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.errors import BackendUnavailable, InvalidInput, NotFound, PermanentError
from imaging_services.domain.jobs import Job, JobHandler, NotYet

MOVE = "1.2.840.10008.5.1.4.1.2.2.2"


class Kept:
    """A queue that keeps bodies; ``do`` hands the first to the worker."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.handler: JobHandler | None = None

    async def put(self, key: str, body: bytes) -> None:
        self.bodies.append(body)

    async def work(self, handler: JobHandler) -> None:
        self.handler = handler

    async def do(self, *, tries: int = 1, age: float = 0, body: bytes | None = None) -> None:
        assert self.handler is not None
        accepted_at = datetime.now(UTC) - timedelta(seconds=age)
        await self.handler(Job(self.bodies[0] if body is None else body, tries, accepted_at))


class Moving:
    """Answers each C-STORE with the statuses of one run after the other; an error is raised."""

    def __init__(self, *runs: dict[str, int] | Exception) -> None:
        self.runs = list(runs)
        self.asked: list[tuple[Asked, frozenset[str] | None]] = []

    async def run(self, asked: Asked, only: frozenset[str] | None) -> Counts:
        self.asked.append((asked, only))
        run = self.runs.pop(0)
        if isinstance(run, Exception):
            raise run
        counts = Counts(len(run))
        for uid, status in run.items():
            counts.add(uid, StoreAnswer(status))
        return counts


class Returning(Moving):
    """Away, until ``again``; then each run says that it has begun, and waits until it may end."""

    def __init__(self) -> None:
        super().__init__(BackendUnavailable("away"), {"1.1": 0x0000}, {"1.1": 0x0000})
        self.again, self.begun, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self, asked: Asked, only: frozenset[str] | None) -> Counts:
        if self.again.is_set():
            self.begun.set()
            await self.may_end.wait()
        return await super().run(asked, only)


async def taken_on(mover: Moving) -> tuple[Kept, Asked]:
    kept = Kept()
    moves = MoveJobs(kept, timedelta(seconds=60))
    command = request(CommandField.C_MOVE_RQ, MOVE, message_id=9, has_data_set=True)
    command.elements[MOVE_DESTINATION] = "DEST"
    asked = Asked("MÖD", MOVE, "1.2.840.10008.1.2", command, b"\x08\x00\x52\x00", extended=b"\x01")
    await moves.take_on(asked)
    await moves.work(mover)
    return kept, asked


async def test_only_what_was_refused_for_now_is_sent_again():
    mover = Moving({"1.1": 0x0000, "1.2": 0xA700, "1.3": 0xC000}, {"1.2": 0x0000})
    kept, asked = await taken_on(mover)
    with pytest.raises(BackendUnavailable, match="1 instances not sent"):
        await kept.do()
    await kept.do(tries=2)
    (first, whole), (_, rest) = mover.asked
    assert (whole, rest) == (None, frozenset({"1.2"}))
    assert (first.calling_ae_title, first.abstract_syntax, first.transfer_syntax, first.command, first.data) == (
        asked.calling_ae_title,
        asked.abstract_syntax,
        asked.transfer_syntax,
        asked.command,
        asked.data,
    )
    assert first.extended == asked.extended


async def test_what_cannot_be_begun_is_tried_again_until_it_is_too_late():
    kept, _ = await taken_on(Moving(NotFound("not known"), NotFound("not known"), {"1.1": 0xA700}))
    with pytest.raises(BackendUnavailable):
        await kept.do()
    with pytest.raises(PermanentError, match="given up"):
        await kept.do(age=61)
    with pytest.raises(PermanentError, match="given up"):
        await kept.do(age=61)


async def test_a_move_that_is_late_is_not_given_up_without_a_try_of_its_own():
    mover = Returning()
    kept, _ = await taken_on(mover)
    with pytest.raises(BackendUnavailable):
        await kept.do()
    mover.again.set()
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(kept.do())
        await mover.begun.wait()
        with pytest.raises(NotYet, match="being tried"):
            await kept.do(age=61)
        mover.may_end.set()
    await first
    await kept.do(age=61)
    assert len(mover.asked) == 3


async def test_what_was_not_foreseen_is_not_tried_for_ever():
    kept, _ = await taken_on(Moving(ValueError("unforeseen"), ValueError("unforeseen")))
    with pytest.raises(ValueError, match="unforeseen"):
        await kept.do()
    with pytest.raises(PermanentError, match="given up"):
        await kept.do(age=61)


async def test_a_broken_job_is_dropped():
    kept, _ = await taken_on(Moving())
    for body in (b"", b"{}", b'{"call": {}, "identifier": "x"}'):
        with pytest.raises(InvalidInput):
            await kept.do(body=body)
