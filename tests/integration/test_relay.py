"""The relay over a real NATS server: large instances, dead letters, restarts, limits."""

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tracemalloc
import uuid
from pathlib import Path

import nats
import psutil
import pytest

from imaging_services.adapters.nats.relay import open_relay
from imaging_services.adapters.nats.relay_dead_letters import Redriven, list_relay_dead_letters, redrive_relay
from imaging_services.adapters.nats.relay_janitor import Janitor
from imaging_services.adapters.nats.relay_objects import ObjectBucket
from imaging_services.adapters.nats.relay_streams import ensure_relay
from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.errors import BackendUnavailable, NotFound, OutOfResources, RetryableError
from imaging_services.local.ports import free_ports
from support.relay import Remembering, blocks, call, find_call, listening, nats_relay, relay_settings, until
from support.servers import NatsServer, start

KILLED = Path(__file__).parents[1] / "support" / "relay_victim.py"


@pytest.fixture
def root():
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
async def client(nats_server):
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


async def empty(client, settings) -> bool:
    js, names = client.jetstream(), settings.receives
    waiting = (await js.stream_info(names.stream)).state.messages
    objects = await ObjectBucket(js, names.bucket, 5).names()
    return waiting == 0 and objects == []


async def arrives_empty(client, settings) -> None:
    async with asyncio.timeout(60):
        while not await empty(client, settings):
            await asyncio.sleep(0.05)


async def nothing_waits(client, settings) -> None:
    """A letter is there a moment before its message has left the queue."""
    async with asyncio.timeout(60):
        while (await client.jetstream().stream_info(settings.receives.stream)).state.messages:
            await asyncio.sleep(0.02)


async def letters_arrive(client, root, count):
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(NotFound):
                letters = [letter async for letter in list_relay_dead_letters(client, root, "B")]
                if len(letters) >= count:
                    return letters
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("confirmed", [False, True])
async def test_a_large_instance_goes_through_the_bucket_in_bounded_memory(nats_server, root, client, confirmed):
    near_settings, far_settings = (relay_settings(nats_server.url, channel, root) for channel in "AB")
    size, block = 80 * 1024 * 1024, os.urandom(256 * 1024)
    digest = hashlib.sha256()

    async def produce():
        for _ in range(size // len(block)):
            digest.update(block)
            yield block

    handler = Remembering()
    async with nats_relay(near_settings) as near, nats_relay(far_settings) as far:
        await ensure_relay(client.jetstream(), far_settings.receives, 0, 1)
        async with listening(far, handler):
            tracemalloc.start()
            sent = call()
            if confirmed:
                assert (await near.store_confirmed(sent, produce())).status == 0
            else:
                await near.store_durably(sent, produce())
                await until(lambda: handler.stored != [])
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert handler.stored == [(sent.command.sop_instance_uid, digest.hexdigest())]
            await arrives_empty(client, far_settings)
    print(f"peak of both ends together: {peak / 2**20:.0f} MiB")
    assert peak < 64 * 1024 * 1024


async def test_permanent_failure_is_a_dead_letter_and_can_be_redriven(nats_server, root, client):
    settings = relay_settings(nats_server.url, "B", root, inline_limit=1000)
    small, large = call(), call()
    handler = Remembering(answers=lambda message, tries: StoreAnswer(0xA900, "mismatch"))
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root, inline_limit=1000)) as near,
        nats_relay(settings) as far,
    ):
        await near.store_durably(small, blocks(b"small"))
        await near.store_durably(large, blocks(b"large" * 1000))
        async with listening(far, handler):
            letters = await letters_arrive(client, root, 2)
            assert {letter.sop_instance_uid for letter in letters} == {
                small.command.sop_instance_uid,
                large.command.sop_instance_uid,
            }
            assert {(letter.error, letter.tries) for letter in letters} == {("Refused", 1)}
            assert all(letter.reason == "C-STORE status A900H mismatch" for letter in letters)
            await nothing_waits(client, settings)
            # the janitor keeps what a dead letter names
            assert await Janitor(client.jetstream(), settings.receives, 0, 5).sweep(0) == 0
            handler.answers = lambda message, tries: StoreAnswer(0)
            assert await redrive_relay(client, root, "B", [letters[0].sequence]) == Redriven(1)
            assert await redrive_relay(client, root, "B") == Redriven(1)
            await until(lambda: len(handler.stored) == 2)
            assert [letter async for letter in list_relay_dead_letters(client, root, "B")] == []
            await arrives_empty(client, settings)
        with pytest.raises(NotFound):
            await redrive_relay(client, root, "B", [letters[0].sequence])


async def test_too_many_tries_end_as_a_dead_letter_and_do_not_stop_others(nats_server, root, client):
    settings = relay_settings(nats_server.url, "B", root, max_tries=2)
    poison, good = call(), [call() for _ in range(20)]

    def answer(message, tries):
        return StoreAnswer(0x0110 if message.call == poison else 0)

    handler = Remembering(answers=answer)
    async with nats_relay(relay_settings(nats_server.url, "A", root)) as near, nats_relay(settings) as far:
        for one in [poison, *good]:
            await near.store_durably(one, blocks(b"data"))
        async with listening(far, handler):
            await until(lambda: len(handler.stored) == 20)
            letters = await letters_arrive(client, root, 1)
    assert [(letter.sop_instance_uid, letter.tries) for letter in letters] == [(poison.command.sop_instance_uid, 2)]


async def test_a_receiver_that_cannot_be_reached_is_waited_for(nats_server, root, client):
    settings = relay_settings(nats_server.url, "B", root, max_tries=1)

    def answer(message, tries):
        if tries < 3:
            raise BackendUnavailable("target is switched off")
        return StoreAnswer(0)

    handler = Remembering(answers=answer)
    async with nats_relay(relay_settings(nats_server.url, "A", root)) as near, nats_relay(settings) as far:
        await near.store_durably(call(), blocks(b"data"))
        async with listening(far, handler):
            await until(lambda: handler.stored != [])
    assert [letter async for letter in list_relay_dead_letters(client, root, "B")] == []


async def test_a_repeated_publish_is_kept_once(nats_server, root, client, monkeypatch):
    settings = relay_settings(nats_server.url, "A", root, reply_timeout=3)
    handler = Remembering()
    async with nats_relay(settings) as near, nats_relay(relay_settings(nats_server.url, "B", root)) as far:
        original, lost = near._connected().request, []

        async def losing(subject, payload=b"", **options):
            reply = await original(subject, payload, **options)
            if ".store." in subject and not lost:
                lost.append(subject)
                raise nats.errors.TimeoutError  # stored, but the acknowledgement got lost
            return reply

        monkeypatch.setattr(near._connected(), "request", losing)
        await near.store_durably(call(), blocks(b"data"))
        async with listening(far, handler):
            await until(lambda: handler.stored != [])
            await asyncio.sleep(0.3)
    assert lost
    assert len(handler.stored) == 1


async def fill(near, size: int) -> None:
    for _ in range(5):
        await near.store_durably(call(), blocks(os.urandom(size)))


async def test_a_full_stream_is_out_of_resources_and_leaves_no_object(nats_server, root, client):
    settings = relay_settings(nats_server.url, "A", root, stream_max_bytes=300_000, inline_limit=100_000)
    async with nats_relay(settings) as near:
        await near.store_durably(call(), blocks(os.urandom(90_000)))
        for size in (90_000, 120_000):
            with pytest.raises(OutOfResources):
                await fill(near, size)
        js, names = client.jetstream(), settings.sends
        kept = await ObjectBucket(js, names.bucket, 5).names()
        named = (await js.stream_info(names.stream, subjects_filter=names.store("*", "*"))).state.subjects or {}
        assert set(kept) == {subject.rpartition(".")[2] for subject in named}


async def test_streams_are_extended_and_never_narrowed(nats_server, root, client):
    js, names = client.jetstream(), relay_settings(nats_server.url, "A", root).sends
    await js.add_stream(name=names.stream, subjects=[names.store("*")], retention="workqueue", max_bytes=1000)
    await ensure_relay(js, names, 50_000, 1)
    config = (await js.stream_info(names.stream)).config
    assert (set(config.subjects), config.max_bytes) == (set(names.queued), 50_000)
    await ensure_relay(js, names, 10, 1)
    assert (await js.stream_info(names.stream)).config.max_bytes == 50_000
    await ensure_relay(js, names, 0, 1)
    assert (await js.stream_info(names.stream)).config.max_bytes == -1
    await ensure_relay(js, names, 10, 1)
    assert (await js.stream_info(names.stream)).config.max_bytes == -1


async def test_in_flight_is_bounded_by_bytes(nats_server, root):
    near_settings = relay_settings(nats_server.url, "A", root)
    far_settings = relay_settings(nats_server.url, "B", root, max_in_flight=1000, max_in_flight_bytes=1)
    at_work, most, several = set(), 0, asyncio.Event()

    class Slow(Remembering):
        async def store(self, message, data):
            nonlocal most
            at_work.add(message.message)
            most = max(most, len(at_work))
            if most > 1:
                several.set()
            await asyncio.wait_for(several.wait(), 60)
            await asyncio.sleep(0.05)
            at_work.discard(message.message)
            return await super().store(message, data)

    handler, payload = Slow(), os.urandom(4 * 1024 * 1024)
    async with nats_relay(near_settings) as near, nats_relay(far_settings) as far:
        for _ in range(24):
            await near.store_durably(call(), blocks(payload))
        async with listening(far, handler):
            await until(lambda: len(handler.stored) == 24)
    # twice the server's max_payload of 16 MiB is the least that is asked for
    assert 2 <= most <= 9


async def test_many_small_ones_in_flight(nats_server, root):
    near_settings, far_settings = (relay_settings(nats_server.url, channel, root, 60) for channel in "AB")
    handler, sent = Remembering(delay=0.01), [call() for _ in range(300)]
    async with nats_relay(near_settings) as near, nats_relay(far_settings) as far, listening(far, handler):
        await asyncio.gather(*(near.store_durably(one, blocks(b"x" * 2000)) for one in sent))
        await until(lambda: len(handler.stored) == 300)
    assert sorted(uid for uid, _ in handler.stored) == sorted(one.command.sop_instance_uid for one in sent)


async def test_long_work_is_not_delivered_twice_and_does_not_time_out(nats_server, root):
    near_settings = relay_settings(nats_server.url, "A", root, reply_timeout=1)
    far_settings = relay_settings(nats_server.url, "B", root, ack_wait_seconds=2)
    handler = Remembering(delay=4.5)
    async with nats_relay(near_settings) as near, nats_relay(far_settings) as far, listening(far, handler):
        await near.store_durably(call(), blocks(b"slow"))
        assert (await near.store_confirmed(call(), blocks(b"slow too"))).status == 0
        await until(lambda: len(handler.stored) == 2)
    assert list(handler.tries.values()) == [1, 1]


async def test_a_killed_receiver_loses_and_doubles_nothing(nats_server, root, tmp_path):
    sent = [call() for _ in range(40)]
    async with nats_relay(relay_settings(nats_server.url, "A", root)) as near:
        for one in sent:
            await near.store_durably(one, blocks(os.urandom(50_000)))
    far_settings = relay_settings(nats_server.url, "B", root, ack_wait_seconds=2)
    victim = subprocess.Popen([sys.executable, str(KILLED), nats_server.url, root, str(tmp_path / "log")])
    log = tmp_path / "log"
    await until(lambda: log.exists() and len(log.read_text().split()) >= 10)
    psutil.Process(victim.pid).send_signal(signal.SIGKILL)
    victim.wait()
    handler = Remembering()
    async with nats_relay(far_settings) as far, listening(far, handler):
        await until(lambda: len(set(log.read_text().split()) | {uid for uid, _ in handler.stored}) == 40)
        await asyncio.sleep(3)
    again = [uid for uid, _ in handler.stored]
    assert len(again) == len(set(again))
    print(f"stored by the killed one: {len(log.read_text().split())}, afterwards: {len(again)}")


async def test_stopping_gives_unfinished_work_back_at_once(nats_server, root):
    near_settings = relay_settings(nats_server.url, "A", root)
    stuck = relay_settings(nats_server.url, "B", root, drain_seconds=0.2, ack_wait_seconds=600)
    handler, never = Remembering(), Remembering(delay=600)
    async with nats_relay(near_settings) as near, nats_relay(stuck) as far:
        await near.store_durably(call(), blocks(b"data"))
        async with listening(far, never):
            await until(lambda: never.tries != {})
        async with listening(far, handler):
            await until(lambda: handler.stored != [])


async def test_nats_stopped_and_started_again(tmp_path, root):
    server = NatsServer(tmp_path, *free_ports(1))
    child = start(server.program())
    near_settings, far_settings = (relay_settings(server.url, channel, root, reply_timeout=3) for channel in "AB")
    handler = Remembering(delay=0.3)
    try:
        async with nats_relay(near_settings) as near, nats_relay(far_settings) as far, listening(far, handler):
            first = [call() for _ in range(5)]
            for one in first:
                await near.store_durably(one, blocks(b"before"))
            child.stop()
            await until(lambda: not near.connected)
            with pytest.raises(BackendUnavailable):
                await near.store_durably(call(), blocks(b"while away"))
            with pytest.raises(BackendUnavailable):
                await near.store_confirmed(call(), blocks(b"while away"))
            child = start(server.program())
            await until(lambda: near.connected and far.connected)
            last = call()
            await near.store_durably(last, blocks(b"after"))
            assert (await near.store_confirmed(call(), blocks(b"after"))).status == 0
            wanted = {one.command.sop_instance_uid for one in [*first, last]}
            await until(lambda: wanted <= {uid for uid, _ in handler.stored}, 60)
    finally:
        child.stop()


async def test_a_read_from_the_bucket_does_not_outwait_a_nats_that_came_back(tmp_path, root):
    server = NatsServer(tmp_path, *free_ports(1))
    child = start(server.program())
    settings = relay_settings(server.url, "A", root)
    try:
        async with nats_relay(settings) as near:
            js = near._connected().jetstream()
            await ensure_relay(js, settings.sends, 0, 1)
            bucket = ObjectBucket(js, settings.sends.bucket, 600)
            await bucket.put("000000000001-large", blocks(os.urandom(24 * 1024 * 1024)))
            reading = bucket.read("000000000001-large")
            await anext(reading)
            child.stop()
            await until(lambda: not near.connected)
            child = start(server.program())
            await until(lambda: near.connected)
            async with asyncio.timeout(60):  # it would wait for ten minutes
                with pytest.raises(RetryableError):
                    async for _ in reading:
                        pass
    finally:
        child.stop()


async def test_nats_that_comes_later(tmp_path, root):
    server = NatsServer(tmp_path, *free_ports(1))
    async with open_relay(relay_settings(server.url, "A", root)) as near:
        with pytest.raises(BackendUnavailable, match="not been reached"):
            await near.store_durably(call(), blocks(b"data"))
        child = start(server.program())
        try:
            await until(lambda: near.connected)
            await near.store_durably(call(), blocks(b"data"))
        finally:
            child.stop()


async def test_the_far_side_stops_when_the_caller_vanishes(nats_server, root):
    near_settings = relay_settings(nats_server.url, "A", root, reply_timeout=1)
    handler = Remembering(responses=1_000_000, delay=0.001)
    async with nats_relay(relay_settings(nats_server.url, "B", root)) as far, listening(far, handler):  # noqa: SIM117
        async with nats_relay(near_settings) as near:
            responses = near.request(find_call(), b"identifier")
            await anext(responses)
            await near._connected().close()  # as if killed: no cancel is sent
            await until(lambda: handler.stopped)
            with pytest.raises(RetryableError):
                async for _ in responses:
                    pass
    assert handler.produced < 100_000


async def test_a_slow_reader_slows_the_far_side_down(nats_server, root):
    handler = Remembering(responses=5000)
    async with nats_relay(relay_settings(nats_server.url, "B", root)) as far, listening(far, handler):  # noqa: SIM117
        async with nats_relay(relay_settings(nats_server.url, "A", root)) as near:
            responses = near.request(find_call(), b"identifier")
            await anext(responses)
            await asyncio.sleep(0.5)
            assert handler.produced < 300
            assert len([one async for one in responses]) == 5000
