"""Who records an event is found out within the time that its sender waits."""

import asyncio
from typing import Any, cast

import pytest

from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.adapters.nats.sink import NatsEventSink
from imaging_services.domain.errors import DeadlineExceeded
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.wiring.direct import DirectSink, Schema
from imaging_services.wiring.record import BatchRecorder
from support.manifest_events import stored

EVENT = stored("1.2", "1.2.1", "1.2.1.1")


class SlowSchema:
    """Of a database that takes ``seconds`` to say that its schema is another one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def is_current(self) -> bool:
        await asyncio.sleep(self._seconds)
        return False


class Processor:
    """Remembers how long it was given."""

    def __init__(self) -> None:
        self.given: list[float] = []

    async def attempt(self, event: CloudEvent, tries: int, timeout: float) -> None:
        self.given.append(timeout)


def sink(schema: Any, processor: Any, timeout: float) -> DirectSink:
    recorder = BatchRecorder(MemoryManifest("edi"), asyncio.Event(), batch_size=10, queue_size=20, queue_bytes=10**6)
    return DirectSink(recorder, cast(NatsEventSink, processor), cast(Schema, schema), timeout=timeout)


async def test_a_database_that_does_not_say_whether_it_is_current_is_not_waited_for_longer() -> None:
    processor = Processor()
    async with asyncio.timeout(60):
        with pytest.raises(DeadlineExceeded):
            await sink(SlowSchema(3600), processor, 0.2).send(EVENT)
    assert not processor.given


async def test_the_time_that_the_answer_took_is_gone() -> None:
    processor = Processor()
    await sink(SlowSchema(0.2), processor, 600).send(EVENT)
    assert [left < 600 - 0.19 for left in processor.given] == [True]
