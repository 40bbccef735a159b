"""One receiver empties the queues of several JetStream domains, joined by leaf connections."""

import asyncio
import contextlib
import hashlib
import os
import uuid
from contextlib import AsyncExitStack, ExitStack

import nats
import pytest
from nats.js.errors import NotFoundError

from imaging_services.adapters.nats import relay_consumer, relay_domains
from imaging_services.adapters.nats.relay_dead_letters import Redriven, list_relay_dead_letters, redrive_relay
from imaging_services.adapters.nats.relay_objects import ObjectBucket
from imaging_services.adapters.nats.relay_streams import ensure_relay
from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.errors import BackendUnavailable, SettingsError
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Origin
from imaging_services.domain.relay.subjects import RelaySubjects
from support.nats_process import NatsProcess
from support.ports import a_free_port
from support.relay import (
    Remembering,
    blocks,
    call,
    find_call,
    listening,
    nats_relay,
    received_once,
    relay_settings,
    until,
)

ROOT = "ACME"
EDGES = ("north", "south")


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A hub with a domain, and two edges that know nothing of feature js_ack_fc_v2."""
    leaf_port = a_free_port()
    denied = [subject for channel in "AB" for subject in RelaySubjects(ROOT, channel).kept]
    listing = ", ".join(f'"{subject}"' for subject in denied)
    remote = (
        f'leafnodes {{ remotes: [{{ url: "nats-leaf://127.0.0.1:{leaf_port}", '
        f"deny_imports: [{listing}], deny_exports: [{listing}] }}] }}\n"
    )
    with ExitStack() as stack:
        hub = NatsProcess(
            tmp_path_factory.mktemp("hub"), more=f"leafnodes {{ listen: 127.0.0.1:{leaf_port} }}\n", domain="hub"
        )
        stack.enter_context(hub)
        edges = {name: NatsProcess(tmp_path_factory.mktemp(name), more=remote, domain=name) for name in EDGES}
        for edge in edges.values():
            stack.enter_context(edge)
        yield hub, edges


@pytest.fixture
async def clean(servers):
    """The servers, their streams removed afterwards."""
    hub, edges = servers
    yield hub, edges
    for server in (hub, *edges.values()):
        client = await nats.connect(server.url)
        for stream in await client.jetstream().streams_info():
            await client.jetstream().delete_stream(stream.config.name)
        await client.close()


def near(edges, name, **more):
    return nats_relay(relay_settings(edges[name].url, "A", ROOT, send_domain=name, **more))


def far(hub, domains="north,south", **more):
    # what is on its way to a receiver that has just gone comes again after the ack wait
    return nats_relay(relay_settings(hub.url, "B", ROOT, receive_domain=domains, ack_wait_seconds=2, **more))


async def waiting(server, *names: str) -> int:
    client = await nats.connect(server.url)
    try:
        infos = [await client.jetstream().stream_info(name) for name in names]
        return sum(info.state.messages for info in infos)
    finally:
        await client.close()


async def arrives_empty(server) -> None:
    names = RelaySubjects(ROOT, "B")
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(NotFoundError):  # it is made by a receiver that has heard of the edge
                if not await waiting(server, names.stream, names.urgent_stream, f"OBJ_{names.bucket}"):
                    return
            await asyncio.sleep(0.05)


async def test_queues_of_edges_that_announce_themselves_are_emptied_and_not_mixed_up(clean):
    hub, edges = clean
    handler = Remembering()
    sent = {name: [call(association=name) for _ in range(30)] for name in EDGES}
    async with near(edges, "north") as north, near(edges, "south") as south, far(hub, "*") as receiver:
        await until(lambda: north.connected and south.connected)
        await received_once(receiver, relay_settings(hub.url, "B", ROOT), *EDGES)
        for link, calls in ((north, sent["north"]), (south, sent["south"])):
            for number, one in enumerate(calls):
                await link.store_durably(one, blocks(b"data"), urgent=number % 3 == 0)
            association = calls[0].origin.association_id
            await link.finish(AssociationNotice(Origin(association, "b", "c"), AssociationState.CLOSED, 60))
        for edge in edges.values():  # nothing crossed by itself
            assert await waiting(edge, f"{ROOT}-B-store", f"{ROOT}-B-urgent") == 31
        # whoever connects announces at once
        async with listening(receiver, handler), near(edges, "north"), near(edges, "south"):
            await until(lambda: len(handler.stored) == 60)
            ends = {"north", "south"}
            await until(lambda: ends == {one.origin.association_id for one in handler.notices if one.state == "closed"})
            for edge in edges.values():
                await arrives_empty(edge)
    everyone = [one.command.sop_instance_uid for calls in sent.values() for one in calls]
    assert sorted(uid for uid, _ in handler.stored) == sorted(everyone)


async def test_an_acknowledgement_is_for_one_edge_alone(clean):
    hub, edges = clean
    gate = asyncio.Event()

    class Gated(Remembering):
        async def store(self, message, data):
            if message.call.origin.association_id == "south":
                await gate.wait()
            return await super().store(message, data)

    handler = Gated()
    async with near(edges, "north") as north, near(edges, "south") as south, far(hub) as receiver:
        for _ in range(10):
            await north.store_durably(call(association="north"), blocks(b"data"))
            await south.store_durably(call(association="south"), blocks(b"data"))
        async with listening(receiver, handler):
            await until(lambda: len(handler.stored) == 10)
            await arrives_empty(edges["north"])
            assert await waiting(edges["south"], f"{ROOT}-B-store") == 10
            gate.set()
            await until(lambda: len(handler.stored) == 20)
            await arrives_empty(edges["south"])


async def test_a_domain_once_heard_of_is_emptied_when_nobody_announces_it_any_more(clean):
    hub, edges = clean
    async with far(hub, "*") as receiver, near(edges, "north") as north:
        async with listening(receiver, Remembering()):
            await north.store_durably(call(), blocks(b"data"))
            await arrives_empty(edges["north"])
        await north.store_durably(call(), blocks(b"left behind"))
    handler = Remembering()
    async with far(hub, "*") as receiver, listening(receiver, handler):
        await until(lambda: handler.stored != [])


async def test_a_long_backlog_of_one_edge_does_not_hold_up_another(clean):
    hub, edges = clean
    handler = Remembering(delay=0.02)
    async with near(edges, "north") as north, near(edges, "south") as south:
        for _ in range(6):
            await asyncio.gather(*(north.store_durably(call(association="long"), blocks(b"x")) for _ in range(100)))
        async with far(hub, max_in_flight=8) as receiver, listening(receiver, handler):
            await until(lambda: len(handler.stored) > 20)
            before = len(handler.stored)
            for _ in range(10):
                await south.store_durably(call(association="short"), blocks(b"y"))
            await until(lambda: [one.call.origin.association_id for one in handler.messages].count("short") == 10)
            assert len(handler.stored) - before < 400


async def test_an_edge_that_is_away_holds_up_nobody(clean, monkeypatch):
    monkeypatch.setattr(relay_consumer, "_PAUSES", (0.5,))
    hub, edges = clean
    handler = Remembering()
    async with (
        near(edges, "south") as south,
        far(hub, "south,nowhere") as receiver,
        listening(receiver, handler),
    ):
        for _ in range(5):
            await south.store_durably(call(), blocks(b"data"))
        await until(lambda: len(handler.stored) == 5)
        edges["south"].kill()
        async with nats_relay(relay_settings(hub.url, "A", ROOT)) as beside:
            await beside.store_durably(call(), blocks(b"from a proxy at the hub"))
            await until(lambda: len(handler.stored) == 6)
        edges["south"].start()
        await until(lambda: south.connected)
        await south.store_durably(call(), blocks(b"back again"))
        await until(lambda: len(handler.stored) == 7)


async def test_the_own_queue_is_emptied_before_its_domain_has_said_its_name(clean, monkeypatch):
    hub, edges = clean
    known, asked = asyncio.Event(), relay_domains.Domains._name

    async def name(domains):
        if not known.is_set():
            raise BackendUnavailable("JetStream does not answer")
        return await asked(domains)

    monkeypatch.setattr(relay_domains.Domains, "_name", name)
    monkeypatch.setattr(relay_domains, "_AGAIN", 0.05)
    handler, own, far_away = Remembering(), call(), call()
    async with (
        near(edges, "north") as north,
        nats_relay(relay_settings(hub.url, "A", ROOT)) as beside,
        far(hub, "north,hub") as receiver,
    ):
        await north.store_durably(far_away, blocks(b"data"))
        async with listening(receiver, handler):
            await beside.store_durably(own, blocks(b"data"))
            await until(lambda: handler.stored != [])
            known.set()
            await until(lambda: len(handler.stored) == 2)
            consumers = await receiver.client().jetstream().consumers_info(f"{ROOT}-B-store")
            assert [one.name for one in consumers] == ["relay"]  # "hub" is the own one, and is not emptied twice
    assert [uid for uid, _ in handler.stored] == [one.command.sop_instance_uid for one in (own, far_away)]


async def test_dead_letters_of_edges_are_kept_at_the_hub_with_their_bytes_and_put_back_there(clean):
    hub, edges = clean
    small, large, payload = call(), call(), os.urandom(300_000)
    handler = Remembering(answers=lambda message, tries: StoreAnswer(0xA900, "mismatch"))
    async with near(edges, "north", inline_limit=1000) as north, far(hub) as receiver:
        await received_once(receiver, relay_settings(hub.url, "B", ROOT), "north")
        await north.store_durably(small, blocks(b"small"), urgent=True)
        await north.store_durably(large, blocks(payload))
        client = receiver.client()
        async with listening(receiver, handler):
            await until(lambda: len(handler.tries) == 2)
            await arrives_empty(edges["north"])
            letters = [letter async for letter in list_relay_dead_letters(client, ROOT, "B")]
            assert {one.sop_instance_uid for one in letters} == {
                small.command.sop_instance_uid,
                large.command.sop_instance_uid,
            }
            handler.answers = lambda message, tries: StoreAnswer(0)
            assert await redrive_relay(client, ROOT, "B") == Redriven(2)
            await until(lambda: len(handler.stored) == 2)
            await arrives_empty(hub)
    stored = dict(handler.stored)
    assert stored[large.command.sop_instance_uid] == hashlib.sha256(payload).hexdigest()
    assert {one.call.command.sop_instance_uid: one.urgent for one in handler.messages} == {
        small.command.sop_instance_uid: True,
        large.command.sop_instance_uid: False,
    }


async def test_a_large_confirmed_instance_is_read_from_the_edges_bucket(clean):
    hub, edges = clean
    handler, payload = Remembering(), os.urandom(3_000_000)
    async with near(edges, "south") as south, far(hub) as receiver, listening(receiver, handler):
        assert (await south.store_confirmed(call(), blocks(payload))).status == 0
    assert handler.stored[0][1] == hashlib.sha256(payload).hexdigest()


async def test_a_large_data_set_from_the_hub_is_read_there(clean):
    hub, edges = clean
    handler, payload = Remembering(), os.urandom(3_000_000)
    async with (
        nats_relay(relay_settings(hub.url, "B", ROOT)) as cloud,
        nats_relay(relay_settings(edges["south"].url, "A", ROOT)) as south,
        listening(south, handler),
    ):
        assert (await cloud.store_confirmed(call(), blocks(payload))).status == 0
        assert [one.command.status async for one in cloud.request(find_call(), payload)][-1] == 0
    assert handler.stored[0][1] == hashlib.sha256(payload).hexdigest()
    assert handler.asked[0][1] == payload


async def test_a_consumer_of_a_former_version_is_replaced_and_streams_keep_their_limits(clean):
    hub, edges = clean
    names, handler = RelaySubjects(ROOT, "B"), Remembering()
    client = await nats.connect(edges["north"].url)
    js = client.jetstream()
    await ensure_relay(js, names, 50_000_000, 1)
    await js.add_consumer(names.stream, durable_name="relay", ack_policy="explicit")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        north = await stack.enter_async_context(near(edges, "north", stream_max_bytes=50_000_000))
        await north.store_durably(call(), blocks(b"data"))
        settings = relay_settings(hub.url, "B", ROOT, receive_domain="north,south")
        receiver = await stack.enter_async_context(nats_relay(settings))
        await stack.enter_async_context(listening(receiver, handler))
        await until(lambda: handler.stored != [])
        assert [one.name for one in await js.consumers_info(names.stream)] == ["relay-north"]
        assert (await js.stream_info(names.stream)).config.max_bytes == 50_000_000
        assert await ObjectBucket(js, names.bucket, 5).names() == []


async def test_a_store_whose_object_is_gone_becomes_a_dead_letter(clean):
    hub, edges = clean
    names, handler, lost = RelaySubjects(ROOT, "B"), Remembering(), call()
    async with near(edges, "north", inline_limit=10) as north, far(hub, max_tries=1) as receiver:
        await north.store_durably(lost, blocks(b"longer than ten bytes"))
        bucket = ObjectBucket(north.client().jetstream(), names.bucket, 5)
        for name in await bucket.names():
            await bucket.delete(name)
        async with listening(receiver, handler):
            await arrives_empty(edges["north"])
        client = receiver.client()
        (letter,) = [letter async for letter in list_relay_dead_letters(client, ROOT, "B")]
    assert (letter.sop_instance_uid, letter.error) == (lost.command.sop_instance_uid, "NotFound")
    assert "its data set is gone: domain north" in letter.reason


@pytest.mark.parametrize("domain", ["a b", "north,so.uth", "n*"])
def test_what_is_no_domain_is_told(domain):
    with pytest.raises(SettingsError, match="is no JetStream domain"):
        relay_settings("nats://127.0.0.1:1", "B", ROOT, receive_domain=domain).check()


def test_domains_of_the_setting():
    def settings(domain):
        return relay_settings("nats://127.0.0.1:1", "B", uuid.uuid4().hex, receive_domain=domain)

    assert settings(None).receive_domains == ()
    assert (settings("one").sole_receive_domain, settings("one,two").sole_receive_domain) == ("one", None)
    assert settings(" one, two ,one").receive_domains == ("one", "two")
    assert settings("*,one").discovers_domains
    assert settings("*").sole_receive_domain is None
