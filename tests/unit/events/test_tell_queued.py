"""Services say that events are queued: at once, but not for each, and whatever becomes of the message."""

import asyncio
import time

import nats.errors
import pytest

from imaging_services.adapters.nats import queued
from imaging_services.adapters.nats.queued import tell_queued
from imaging_services.domain.events.subjects import EventSubjects
from support.events import eventually, in_background


class Client:
    """Notes when it was told; the first message gets lost."""

    def __init__(self) -> None:
        self.told: list[float] = []

    async def publish(self, subject: str) -> None:
        assert subject == "imaging.edi.queued"
        self.told.append(time.monotonic())
        if len(self.told) == 1:
            raise nats.errors.ConnectionClosedError


async def test_many_events_are_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued, "_GATHERING", 0.3)
    client, something = Client(), asyncio.Event()
    async with in_background(tell_queued(client, EventSubjects("imaging", "edi"), something)):  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert client.told == []
        something.set()
        await eventually(lambda: client.told)
        for _ in range(20):
            something.set()
            await asyncio.sleep(0)
        await eventually(lambda: len(client.told) == 2)
        await eventually(lambda: not something.is_set())
    assert len(client.told) == 2
    assert client.told[1] - client.told[0] >= 0.29
