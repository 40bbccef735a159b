"""Objects that no message names are removed, and no others."""

import uuid

import nats
import pytest

from imaging_services.adapters.nats.relay_janitor import Janitor
from imaging_services.adapters.nats.relay_objects import ObjectBucket
from imaging_services.adapters.nats.relay_streams import ensure_relay
from imaging_services.domain.errors import NotFound
from support.relay import blocks, call, nats_relay, received_once, relay_settings


@pytest.fixture
async def client(nats_server):
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


async def test_the_janitor_removes_only_what_nobody_names(nats_server, client):
    settings = relay_settings(nats_server.url, "A", f"t{uuid.uuid4().hex}", inline_limit=10)
    js, names = client.jetstream(), settings.sends
    async with nats_relay(settings) as near:
        await near.store_durably(call(), blocks(b"waiting on the stream"))
    bucket = ObjectBucket(js, names.bucket, 5)
    (waiting,) = await bucket.names()
    await bucket.put("000000000001-orphan", blocks(b"left by a crash"))
    await js.publish(f"$O.{names.bucket}.C.000000000002-torn", b"upload cut off")
    assert await Janitor(js, names, 3600, 5).sweep(0) == 2
    assert await bucket.names() == [waiting]
    assert await Janitor(js, names, 0, 5).sweep(0) == 0
    with pytest.raises(NotFound):
        [block async for block in bucket.read("000000000001-orphan")]


async def test_what_is_being_uploaded_stays_however_wrong_the_clocks_are(nats_server, client):
    settings = relay_settings(nats_server.url, "A", f"t{uuid.uuid4().hex}")
    js, names = client.jetstream(), settings.sends
    await ensure_relay(js, names, 0, 1)
    bucket, janitor = ObjectBucket(js, names.bucket, 5), Janitor(js, names, 3600, 5)
    await bucket.put("000000000001-uploaded", blocks(b"not named yet"))
    assert await janitor.sweep(60) == 0
    assert await janitor.sweep(60) == 0
    assert await bucket.names() != []
    assert await janitor.sweep(0) == 1


@pytest.mark.parametrize("urgent", [False, True])
async def test_what_a_queue_names_stays(nats_server, client, urgent):
    settings = relay_settings(nats_server.url, "A", f"t{uuid.uuid4().hex}", inline_limit=10)
    js, names = client.jetstream(), settings.sends
    receives = settings.model_copy(update={"channel": "B"})
    async with nats_relay(settings) as near, nats_relay(receives) as far:
        await received_once(far, receives)
        await near.store_durably(call(), blocks(b"longer than ten bytes"), urgent=urgent)
    assert await Janitor(js, names, -1, 5).sweep(0) == 0
    assert len(await ObjectBucket(js, names.bucket, 5).names()) == 1
    assert (await js.stream_info(names.urgent_stream if urgent else names.stream)).state.messages == 1
