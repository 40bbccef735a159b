"""Whoever asks by core NATS knows within seconds that nobody is at it, and waits for long work all the same."""

import asyncio
import subprocess
import sys
import time
import uuid
from pathlib import Path

import nats
import psutil
import pytest

from imaging_services.adapters.nats import ingress, relay_link, relay_responder, sink
from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.ingress import serve_ingress
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.adapters.nats.sink import NatsEventSink
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, OutOfResources
from imaging_services.domain.events.nats_binding import encode_nats
from imaging_services.domain.events.subjects import EventSubjects
from support.events import an_event, in_background
from support.relay import Remembering, blocks, call, find_call, listening, nats_relay, relay_settings, until

VICTIM = Path(__file__).parents[1] / "support" / "relay_victim.py"
SECONDS = 20  # in which a death is noticed on a machine that has much else to do; the time-outs are longer


@pytest.fixture
def root():
    return f"t{uuid.uuid4().hex}"


async def test_a_far_side_killed_at_work_is_noticed_long_before_the_time_out(nats_server, root, tmp_path):
    log = tmp_path / "log"
    victim = subprocess.Popen([sys.executable, str(VICTIM), nats_server.url, root, str(log), "600"])
    try:
        async with nats_relay(relay_settings(nats_server.url, "A", root, reply_timeout=600)) as near:
            storing = asyncio.create_task(insist(near))
            await until(lambda: log.exists() and log.read_text() == "begun", 40)
            psutil.Process(victim.pid).kill()
            with pytest.raises(BackendUnavailable, match="who had taken it has gone"):
                await asyncio.wait_for(storing, SECONDS)
    finally:
        victim.kill()
        victim.wait()


async def insist(near):
    """Confirmed, once somebody listens."""
    while True:
        try:
            return await near.store_confirmed(call(), blocks(b"data"))
        except BackendUnavailable as error:
            if "nobody listens" not in str(error):
                raise
            await asyncio.sleep(0.1)


async def test_a_far_side_that_takes_nothing_is_noticed_long_before_the_time_out(nats_server, root, monkeypatch):
    """As if its machine had lost power: the server has not noticed yet."""
    monkeypatch.setattr(relay_link, "_TAKEN_SECONDS", 1.0)
    settings = relay_settings(nats_server.url, "A", root, reply_timeout=600)
    client = await nats.connect(nats_server.url)
    await client.subscribe(settings.sends.confirm, cb=taking_nothing)
    await client.subscribe(settings.sends.request, cb=taking_nothing)
    await client.flush()
    async with nats_relay(settings) as near, asyncio.timeout(SECONDS):
        with pytest.raises(DeadlineExceeded, match="nobody has taken it within 1 s"):
            await near.store_confirmed(call(), blocks(b"data"))
        with pytest.raises(DeadlineExceeded, match="nobody has taken it within 1 s"):
            [one async for one in near.request(find_call(), b"identifier")]
    await client.close()


async def taking_nothing(_) -> None:
    """Never answers."""


async def test_what_has_no_room_waits_its_turn(nats_server, root):
    far_settings = relay_settings(nats_server.url, "B", root, max_in_flight=1)
    gate, most = asyncio.Event(), 0

    class Gated(Remembering):
        async def store(self, message, data):
            nonlocal most
            await gate.wait()
            most = max(most, sum("_guarded" in repr(task.get_coro()) for task in asyncio.all_tasks()))
            return await super().store(message, data)

    handler = Gated()
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root, reply_timeout=60)) as near,
        nats_relay(far_settings) as far,
        listening(far, handler),
    ):
        storing = [asyncio.create_task(near.store_confirmed(call(), blocks(b"data"))) for _ in range(30)]
        await asyncio.sleep(0.5)
        gate.set()
        assert {answer.status for answer in await asyncio.gather(*storing)} == {0}
    assert len(handler.stored) == 30
    assert 1 <= most <= relay_responder._STORES_WAITING


async def test_when_there_is_never_room_it_says_so(nats_server, root):
    far_settings = relay_settings(nats_server.url, "B", root, max_in_flight=1)
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root, reply_timeout=1)) as near,
        nats_relay(relay_settings(nats_server.url, "A", root, reply_timeout=600)) as patient,
        nats_relay(far_settings) as far,
        listening(far, Remembering(delay=600)),
    ):
        storing = [asyncio.create_task(patient.store_confirmed(call(), blocks(b"data"))) for _ in range(4)]
        await asyncio.sleep(0.5)
        async with asyncio.timeout(2 * SECONDS):
            with pytest.raises(OutOfResources, match="no room"):
                await near.store_confirmed(call(), blocks(b"data"))
        assert not any(one.done() for one in storing)
        for one in storing:
            one.cancel()
        await asyncio.gather(*storing, return_exceptions=True)


# Events handed in


@pytest.fixture
def subjects():
    return EventSubjects("lives", f"edi-{uuid.uuid4().hex}")


async def test_a_processor_that_dies_with_the_event_in_hand_costs_little_time(nats_server, subjects):
    settings = NatsSettings(url=nats_server.url, subject_root="lives")
    taken, over, got = asyncio.Event(), asyncio.Event(), []

    async def for_ever(event):
        taken.set()
        await over.wait()

    async def handle(event):
        got.append(event.id)

    async with connect(settings) as client, connect(settings) as other, connect(settings) as victim:
        handing_in = NatsEventSink(client, subjects, timeout=600)
        dying = asyncio.create_task(serve_ingress(victim, subjects.root, subjects.stream, for_ever))
        sending = asyncio.create_task(handing_in.send(an_event()))
        await taken.wait()
        await asyncio.sleep(0.5)  # it has said that it is at it
        await victim.close()  # as a kill looks to the server
        begun = time.monotonic()
        async with in_background(serve_ingress(other, subjects.root, subjects.stream, handle)):
            await asyncio.wait_for(sending, SECONDS)
        print(f"handed in again after {time.monotonic() - begun:.1f} s")
        assert len(got) == 1
        await handing_in.close()
        over.set()
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)


async def test_a_processor_that_hangs_is_passed_over(nats_server, subjects, monkeypatch):
    monkeypatch.setattr(sink, "_TAKEN", (0.3,))
    settings = NatsSettings(url=nats_server.url, subject_root="lives")
    heard, got = [], []

    async def handle(event):
        got.append(event.id)

    async def hanging(message):
        heard.append(message)

    async with connect(settings) as client, connect(settings) as other:
        subscription = await other.subscribe(subjects.ingress, cb=hanging)
        await other.flush()
        handing_in = NatsEventSink(client, subjects, timeout=600)
        sending = asyncio.create_task(handing_in.send(an_event()))
        await until(lambda: len(heard) >= 2)
        await subscription.unsubscribe()
        async with in_background(serve_ingress(other, subjects.root, subjects.stream, handle)):
            await asyncio.wait_for(sending, SECONDS)
        assert len(got) == 1
        await handing_in.close()


async def test_long_work_is_waited_for_and_not_handed_in_again(nats_server, subjects, monkeypatch):
    monkeypatch.setattr(sink, "_TAKEN", (2.0,))
    monkeypatch.setattr(sink, "_SILENCE", 2.5)
    settings = NatsSettings(url=nats_server.url, subject_root="lives")
    calls = []

    async def slow(event):
        calls.append(event.id)
        await asyncio.sleep(3)

    async with (
        connect(settings) as client,
        connect(settings) as other,
        in_background(serve_ingress(other, subjects.root, subjects.stream, slow, concurrency=1)),
    ):
        handing_in = NatsEventSink(client, subjects, timeout=600)
        await asyncio.gather(handing_in.send(an_event()), handing_in.send(an_event()))  # the second one waits first
        await handing_in.close()
    assert len(calls) == 2


async def test_a_producer_that_asks_for_no_signs_gets_one_answer(nats_server, subjects):
    settings, started = NatsSettings(url=nats_server.url, subject_root="lives"), asyncio.Event()

    async def slow(event):
        await asyncio.sleep(1)

    async with (
        connect(settings) as client,
        connect(settings) as other,
        in_background(serve_ingress(other, subjects.root, subjects.stream, slow, started=started)),
    ):
        await started.wait()
        headers, payload = encode_nats(an_event())
        begun = time.monotonic()
        reply = await client.request(subjects.ingress, payload, headers=headers, timeout=60)
        assert (reply.data, reply.headers) == (b"", None)
        assert time.monotonic() - begun > 0.9


async def test_events_for_which_there_is_no_room_are_handed_in_again(nats_server, subjects, monkeypatch):
    monkeypatch.setattr(ingress, "_WAITING_MESSAGES", 3)
    settings = NatsSettings(url=nats_server.url, subject_root="lives")
    at_once = most = 0
    got = []

    async def handle(event):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        got.append(event.id)

    async with (
        connect(settings) as client,
        connect(settings) as other,
        in_background(serve_ingress(other, subjects.root, subjects.stream, handle)),
    ):
        handing_in = NatsEventSink(client, subjects, timeout=60)
        await asyncio.gather(*(handing_in.send(an_event(number=number)) for number in range(12)))
        await handing_in.close()
    assert len(set(got)) == 12
    assert most <= 3
