"""Compressed data sets over a real NATS server, in messages, through the bucket, and as dead letters."""

import hashlib
import os
import uuid

import pytest

from imaging_services.adapters.nats.relay_dead_letters import Redriven, list_relay_dead_letters, redrive_relay
from imaging_services.domain.dicom.dimse import StoreAnswer
from support.relay import Remembering, blocks, call, listening, nats_relay, relay_settings, until

DATA = (b"a row of pixels " * 100 + os.urandom(800)) * 1000  # 2.4 MB, a third of it noise


@pytest.fixture
def ends(nats_server):
    root = f"t{uuid.uuid4().hex}"
    near = relay_settings(nats_server.url, "A", root, compression_level=1, inline_limit=1_000_000)
    return near, relay_settings(nats_server.url, "B", root)


@pytest.mark.parametrize("size", [100, 500_000, len(DATA)], ids=["short", "message", "bucket"])
async def test_it_arrives_as_it_was(ends, size):
    (near_settings, far_settings), data, handler = ends, DATA[:size], Remembering()
    names = far_settings.receives
    async with nats_relay(near_settings) as near, nats_relay(far_settings) as far:
        await near.store_durably(call(), blocks(data))
        js = far.client().jetstream()
        streams = [await js.stream_info(name) for name in (names.stream, f"OBJ_{names.bucket}")]
        on_the_way = sum(info.state.bytes for info in streams)
        async with listening(far, handler):
            assert (await near.store_confirmed(call(), blocks(data))).status == 0
            await until(lambda: len(handler.stored) == 2)
    assert {digest for _, digest in handler.stored} == {hashlib.sha256(data).hexdigest()}
    assert {one.size for one in handler.messages} == {size}
    assert all((one.encoding is None) == (size == 100) for one in handler.messages)
    assert size == 100 or on_the_way < 0.5 * size


async def test_a_dead_letter_stays_compressed(ends):
    (near_settings, far_settings), handler = ends, Remembering(answers=lambda message, tries: StoreAnswer(0xA900))
    root = far_settings.nats.subject_root
    async with nats_relay(near_settings) as near, nats_relay(far_settings) as far, listening(far, handler):
        for data in (DATA[:500_000], DATA):
            await near.store_durably(call(), blocks(data))
        await until(lambda: len(handler.tries) == 2)
        client, found = far.client(), []
        while len(found) < 2:
            found = [letter async for letter in list_relay_dead_letters(client, root, "B")]
        assert {letter.size for letter in found} == {500_000, len(DATA)}
        handler.answers = lambda message, tries: StoreAnswer(0)
        assert await redrive_relay(client, root, "B") == Redriven(2)
        await until(lambda: len(handler.stored) == 2)
    wanted = {hashlib.sha256(data).hexdigest() for data in (DATA[:500_000], DATA)}
    assert {digest for _, digest in handler.stored} == wanted
