"""Events for tests, and consumers that run in the background."""

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson

from imaging_services.domain.events.envelope import DICOM_AVAILABLE, PRIORITY, URGENT, CloudEvent
from imaging_services.domain.ports import DeadLetter, EventHandler, EventLog


def an_event(event_type: str = DICOM_AVAILABLE, *, number: int = 0, **members: object) -> CloudEvent:
    """An event with an id of its own."""
    data = {"provider": "north", "endpoint": f"http://north/{number}", **members}
    return CloudEvent(type=event_type, source="test", id=str(uuid.uuid4()), data=orjson.dumps(data))


def an_urgent_event(number: int = 0) -> CloudEvent:
    """An event that overtakes others."""
    return dataclasses.replace(an_event(number=number), extensions={PRIORITY: URGENT})


@asynccontextmanager
async def consuming(
    log: EventLog,
    consumer: str,
    handler: EventHandler,
    types: frozenset[str] = frozenset({DICOM_AVAILABLE}),
    **how: int,
) -> AsyncIterator["asyncio.Task[None]"]:
    """A consumer for the length of the context; left, it finishes what is in the handler."""
    async with in_background(log.consume(consumer, types, handler, **how)) as task:
        yield task


@asynccontextmanager
async def in_background(work: Awaitable[None]) -> AsyncIterator["asyncio.Task[None]"]:
    """The work as a task, cancelled at the end; its own failure is the test's."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition is true; fail after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def letters(log: EventLog, consumer: str | None = None) -> list[DeadLetter]:
    """Every dead letter."""
    return [letter async for letter in log.dead_letters(consumer)]


async def letters_arrive(
    log: EventLog, count: int, consumer: str | None = None, seconds: float = 60
) -> list[DeadLetter]:
    """Wait for this many dead letters."""
    async with asyncio.timeout(seconds):
        while len(found := await letters(log, consumer)) < count:
            await asyncio.sleep(0.05)
    return found
