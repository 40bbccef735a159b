"""Ends of associations wait in the work queue: behind a backlog, behind retries, not behind others, not for ever."""

import asyncio
import uuid

import nats
import pytest

from imaging_services.adapters.nats import relay_ends
from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Origin
from support.relay import Remembering, blocks, call, listening, nats_relay, relay_settings, until


@pytest.fixture
def root():
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
async def client(nats_server):
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


def end(association: str, lease: float = 60) -> AssociationNotice:
    return AssociationNotice(Origin(association, "MODALITY", "PROXY"), AssociationState.CLOSED, lease)


class Listening(Remembering):
    """Remembers how many stores had been made when an end was told, and how often an association was renewed."""

    def __init__(self, **options):
        super().__init__(**options)
        self.ended: dict[str, int] = {}
        self.renewed: list[str] = []
        self.trouble = 0

    async def noticed(self, notice):
        association = notice.origin.association_id
        if notice.state is AssociationState.RENEWED:
            self.renewed.append(association)
        elif self.trouble:
            self.trouble -= 1
            raise BackendUnavailable("database away")
        else:
            self.ended[association] = len(self.stored)


async def waiting(client, settings) -> int:
    return (await client.jetstream().stream_info(settings.receives.stream)).state.messages


async def test_an_end_waits_for_a_backlog_longer_than_what_is_in_flight(nats_server, root, client):
    settings = relay_settings(nats_server.url, "B", root, max_in_flight=4)
    handler = Listening(delay=0.01)
    async with nats_relay(relay_settings(nats_server.url, "A", root)) as near, nats_relay(settings) as far:
        for _ in range(60):
            await near.store_durably(call(association="long"), blocks(b"data"))
        await near.finish(end("long"))
        await near.finish(end("long"))  # told twice is kept once
        assert await waiting(client, settings) == 61
        async with listening(far, handler):
            await until(lambda: handler.ended != {})
            assert handler.ended == {"long": 60}
            async with asyncio.timeout(20):
                while await waiting(client, settings):
                    await asyncio.sleep(0.05)


async def test_an_end_that_waits_renews_its_association_before_its_turn_comes(nats_server, root):
    settings = relay_settings(nats_server.url, "B", root, max_in_flight=1)
    gate = asyncio.Event()

    class Gated(Listening):
        async def store(self, message, data):
            await gate.wait()
            return await super().store(message, data)

    handler = Gated()
    async with nats_relay(relay_settings(nats_server.url, "A", root)) as near, nats_relay(settings) as far:
        await near.store_durably(call(association="other"), blocks(b"data"))
        await near.store_durably(call(association="queued"), blocks(b"data"))
        await near.finish(end("queued", lease=0.3))
        async with listening(far, handler):
            await until(lambda: handler.renewed.count("queued") > 3)
            assert handler.ended == {}
            gate.set()
            await until(lambda: "queued" in handler.ended)
            assert handler.ended == {"queued": 2}
            assert set(handler.renewed) == {"queued"}


async def test_an_end_does_not_wait_for_other_associations_or_for_dead_letters(nats_server, root):
    settings = relay_settings(nats_server.url, "B", root)

    def answer(message, tries):
        association = message.call.origin.association_id
        return StoreAnswer({"poison": 0xA900, "later": 0xA700}.get(association, 0))

    handler = Listening(answers=answer)
    async with nats_relay(relay_settings(nats_server.url, "A", root)) as near, nats_relay(settings) as far:
        for association in ("poison", "later", "good"):
            await near.store_durably(call(association=association), blocks(b"data"))
            await near.finish(end(association))
        async with listening(far, handler):
            await until(lambda: {"good", "poison"} <= handler.ended.keys())
            assert "later" not in handler.ended


async def test_an_end_does_not_wait_for_ever(nats_server, root, monkeypatch):
    monkeypatch.setattr(relay_ends, "_NO_PROGRESS", 1.0)
    handler = Listening(answers=lambda message, tries: StoreAnswer(0xA700))
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root)) as near,
        nats_relay(relay_settings(nats_server.url, "B", root)) as far,
    ):
        await near.store_durably(call(association="stuck"), blocks(b"data"))
        await near.finish(end("stuck"))
        async with listening(far, handler):
            await until(lambda: handler.ended == {"stuck": 0})


async def test_while_the_storage_is_away_no_end_is_due(nats_server, root, monkeypatch):
    monkeypatch.setattr(relay_ends, "_NO_PROGRESS", 0.5)
    back = asyncio.Event()

    def answer(message, tries):
        if not back.is_set():
            raise BackendUnavailable("storage is away")
        return StoreAnswer(0)

    handler = Listening(answers=answer)
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root)) as near,
        nats_relay(relay_settings(nats_server.url, "B", root)) as far,
    ):
        sent = call(association="patient")
        await near.store_durably(sent, blocks(b"data"))
        await near.finish(end("patient"))
        async with listening(far, handler):
            await until(lambda: handler.tries.get(sent.command.sop_instance_uid, 0) >= 3)  # about three seconds
            assert handler.ended == {}
            back.set()
            await until(lambda: handler.ended == {"patient": 1})


async def test_an_end_that_could_not_be_recorded_is_told_again(nats_server, root):
    handler = Listening()
    handler.trouble = 2
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root)) as near,
        nats_relay(relay_settings(nats_server.url, "B", root)) as far,
        listening(far, handler),
    ):
        await near.finish(end("a"))
        await until(lambda: handler.ended == {"a": 0})
    assert handler.trouble == 0


async def test_an_end_that_cannot_be_read_holds_up_nothing(nats_server, root, client):
    settings = relay_settings(nats_server.url, "B", root)
    handler = Listening()
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root)) as near,
        nats_relay(settings) as far,
        listening(far, handler),
    ):
        await near.finish(end("good"))
        await client.jetstream().publish(settings.receives.end("broken"), b"", headers={"Imaging-State": "closed"})
        await near.finish(end("good too"))
        await until(lambda: handler.ended.keys() == {"good", "good too"})
        async with asyncio.timeout(20):
            while await waiting(client, settings):
                await asyncio.sleep(0.05)
