"""Dead letters of the relay put back: as old as they were, and superseded versions only when named."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import nats
import pytest

from imaging_services.adapters.nats.relay_dead_letters import Redriven, list_relay_dead_letters, redrive_relay
from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.errors import Superseded
from support.relay import Remembering, blocks, call, listening, nats_relay, relay_settings, until

CLOCKS = timedelta(milliseconds=50)  # the server rounds otherwise than we


@pytest.fixture
def root():
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
async def client(nats_server):
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


async def superseded(client, root, near, far_settings):
    """A dead letter of an instance of which another process has stored a newer version."""
    sent = call()
    await near.store_durably(sent, blocks(b"old"))

    class Newer(Remembering):
        async def store(self, message, data):
            raise Superseded("a version accepted later is there already")

    async with nats_relay(far_settings) as far, listening(far, Newer()):
        async with asyncio.timeout(20):
            while not (letters := [letter async for letter in list_relay_dead_letters(client, root, "B")]):
                await asyncio.sleep(0.05)
    return letters[0]


async def test_a_redrive_leaves_superseded_versions_out_unless_they_are_named(nats_server, root, client):
    settings = relay_settings(nats_server.url, "B", root)
    handler = Remembering()
    async with nats_relay(relay_settings(nats_server.url, "A", root)) as near:
        before = datetime.now(UTC)
        letter = await superseded(client, root, near, settings)
        assert letter.error == "Superseded"
        refused = await dead_letter(client, root, near, settings)
        again = datetime.now(UTC)
        async with nats_relay(settings) as far, listening(far, handler):
            assert await redrive_relay(client, root, "B") == Redriven(1, superseded=1)
            await until(lambda: len(handler.stored) == 1)
            assert await redrive_relay(client, root, "B", [letter.sequence]) == Redriven(1)
            await until(lambda: len(handler.stored) == 2)
        assert [letter async for letter in list_relay_dead_letters(client, root, "B")] == []
    first, second = handler.messages
    assert first.call.command.sop_instance_uid == refused
    assert before - CLOCKS < first.accepted_at < again  # as old as it was
    assert second.accepted_at > again - CLOCKS  # sent anew


async def dead_letter(client, root, near, far_settings) -> str:
    """The SOP Instance UID of an instance that was refused for good."""
    sent = call()
    await near.store_durably(sent, blocks(b"data"))
    handler = Remembering(answers=lambda message, tries: StoreAnswer(0xA900))
    async with nats_relay(far_settings) as far, listening(far, handler):
        async with asyncio.timeout(20):
            while len([letter async for letter in list_relay_dead_letters(client, root, "B")]) < 2:
                await asyncio.sleep(0.05)
    return sent.command.sop_instance_uid
