"""Urgent stores over a real NATS server: versions, dead letters, limits, streams of former versions."""

import asyncio
import hashlib
import os
import uuid

import nats
import pytest
from prometheus_client import REGISTRY

from imaging_services.adapters.nats import relay_depth, relay_urgent
from imaging_services.adapters.nats.relay_dead_letters import Redriven, redrive_relay
from imaging_services.adapters.nats.relay_streams import ensure_relay
from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.errors import OutOfResources
from support.relay import Remembering, blocks, call, listening, nats_relay, received_once, relay_settings, until


@pytest.fixture
def root():
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
async def client(nats_server):
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


@pytest.fixture
async def received(nats_server, root):
    settings = relay_settings(nats_server.url, "B", root)
    async with nats_relay(settings) as far:
        await received_once(far, settings)


@pytest.mark.usefixtures("received")
async def test_an_urgent_version_that_overtook_an_older_one_is_not_replaced_by_it(nats_server, root):
    sent, handler = call(), Remembering(delay=0.05)
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root)) as near,
        nats_relay(relay_settings(nats_server.url, "B", root, max_in_flight=4)) as far,
    ):
        for _ in range(60):
            await near.store_durably(call(), blocks(b"before"))
        await near.store_durably(sent, blocks(b"first version"))
        await near.store_durably(sent, blocks(b"second version"), urgent=True)
        async with listening(far, handler):
            await until(lambda: len(handler.stored) == 61)
            async with asyncio.timeout(60):
                while not await letters(far.client(), root):
                    await asyncio.sleep(0.05)
    versions = [digest for uid, digest in handler.stored if uid == sent.command.sop_instance_uid]
    assert versions == [hashlib.sha256(b"second version").hexdigest()]


async def letters(client, root) -> int:
    names = relay_settings("", "B", root).receives
    return (await client.jetstream().stream_info(names.dead_letter_stream)).state.messages


@pytest.mark.usefixtures("received")
async def test_a_dead_letter_that_was_urgent_is_put_back_as_urgent(nats_server, root, client):
    names = relay_settings("", "B", root).receives
    handler = Remembering(answers=lambda message, tries: StoreAnswer(0xA900))
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root, inline_limit=1000)) as near,
        nats_relay(relay_settings(nats_server.url, "B", root)) as far,
    ):
        await near.store_durably(call(), blocks(b"small"), urgent=True)
        await near.store_durably(call(), blocks(b"large" * 1000), urgent=True)
        async with listening(far, handler):
            await until(lambda: len(handler.tries) == 2)
            async with asyncio.timeout(60):
                while await letters(client, root) < 2:
                    await asyncio.sleep(0.05)
        assert await redrive_relay(client, root, "B") == Redriven(2)
        assert (await client.jetstream().stream_info(names.urgent_stream)).state.messages == 2
        handler.answers = lambda message, tries: StoreAnswer(0)
        async with listening(far, handler):
            await until(lambda: len(handler.stored) == 2)
    assert all(message.urgent for message in handler.messages)


async def test_an_urgent_store_finds_room_when_the_others_have_filled_theirs(nats_server, root):
    receives = relay_settings(nats_server.url, "B", root, stream_max_bytes=300_000)
    async with nats_relay(receives) as far:
        await received_once(far, receives)
    async with nats_relay(relay_settings(nats_server.url, "A", root, stream_max_bytes=300_000)) as near:
        for _ in range(3):
            await near.store_durably(call(), blocks(os.urandom(90_000)))
        with pytest.raises(OutOfResources):
            await near.store_durably(call(), blocks(os.urandom(90_000)))
        await near.store_durably(call(), blocks(os.urandom(90_000)), urgent=True)


@pytest.mark.usefixtures("received")
async def test_neither_kind_waits_for_ever_behind_the_other(nats_server, root):
    handler = Remembering(delay=0.01)
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root)) as near,
        nats_relay(relay_settings(nats_server.url, "B", root, max_in_flight=4)) as far,
    ):
        for _ in range(2):
            await asyncio.gather(*(near.store_durably(call(), blocks(b"x"), urgent=True) for _ in range(100)))
        for _ in range(10):
            await near.store_durably(call(), blocks(b"y"))
        async with listening(far, handler):
            await until(lambda: sum(not message.urgent for message in handler.messages) == 10)
            assert sum(message.urgent for message in handler.messages) < 200
            await until(lambda: len(handler.stored) == 210)


async def test_the_streams_of_a_former_version_get_the_urgent_one_beside_them(nats_server, root, client):
    js, names = client.jetstream(), relay_settings("", "B", root).receives
    await ensure_relay(js, names, 0, 1)
    await js.delete_stream(names.urgent_stream)
    handler = Remembering()
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root)) as near,
        nats_relay(relay_settings(nats_server.url, "B", root)) as far,
    ):
        await near.store_durably(call(), blocks(b"before"))
        await near.store_durably(call(), blocks(b"urgent"), urgent=True)
        async with listening(far, handler):
            await until(lambda: len(handler.stored) == 2)


@pytest.mark.usefixtures("received")
async def test_the_depth_of_each_queue_is_a_metric(nats_server, root, monkeypatch):
    monkeypatch.setattr(relay_depth, "_EVERY", 0.1)
    gate = asyncio.Event()

    class Gated(Remembering):
        async def store(self, message, data):
            await gate.wait()
            return await super().store(message, data)

    def depth(priority: str) -> float | None:
        labels = {"channel": "B", "domain": "", "priority": priority}
        return REGISTRY.get_sample_value("imaging_relay_waiting", labels)

    async with (
        nats_relay(relay_settings(nats_server.url, "A", root)) as near,
        nats_relay(relay_settings(nats_server.url, "B", root)) as far,
    ):
        for number in range(7):
            await near.store_durably(call(), blocks(b"data"), urgent=number < 2)
        async with listening(far, Gated()):
            await until(lambda: (depth("urgent"), depth("normal")) == (2, 5))
            gate.set()
            await until(lambda: (depth("urgent"), depth("normal")) == (0, 0))
    assert depth("normal") is None


async def test_urgent_stores_go_with_the_others_while_nobody_empties_their_queue(
    nats_server, root, client, monkeypatch
):
    monkeypatch.setattr(relay_urgent, "_FRESH", 0)
    names, settings = relay_settings("", "B", root).receives, relay_settings(nats_server.url, "B", root)
    async with nats_relay(relay_settings(nats_server.url, "A", root)) as near, nats_relay(settings) as far:
        await near.store_durably(call(association="began before"), blocks(b"data"), urgent=True)
        assert await messages(client, names.stream, names.urgent_stream) == [1, 0]
        await received_once(far, settings)
        await near.store_durably(call(association="began before"), blocks(b"data"), urgent=True)
        await near.store_durably(call(), blocks(b"data"), urgent=True)
        # a series stays together
        assert await messages(client, names.stream, names.urgent_stream) == [1, 1]


async def messages(client, *streams: str) -> list[int]:
    return [(await client.jetstream().stream_info(stream)).state.messages for stream in streams]
