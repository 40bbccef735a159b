"""The versions of one instance are stored in the order of sending, and an older one never replaces a newer."""

import asyncio
import hashlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from imaging_services.adapters.nats import relay_consumer, relay_order
from imaging_services.adapters.nats.relay_consumer import StoreConsumer
from imaging_services.adapters.nats.relay_ends import AssociationEnds
from imaging_services.adapters.nats.relay_order import Version, VersionOrder
from imaging_services.adapters.nats.relay_places import RelayPlace
from imaging_services.adapters.nats.relay_receiving import Receiving
from imaging_services.adapters.nats.relay_settings import RelaySettings
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.errors import DeadlineExceeded
from imaging_services.domain.relay.messages import Call, Origin, StoreMessage

CT = "1.2.840.10008.5.1.4.1.1.2"
SENT = datetime.now(UTC)
STORED, FULL = StoreAnswer(0x0000), StoreAnswer(0xA700)


def version(number, instance="1.2.3", digest=None):
    """The version of an instance that was sent ``number`` seconds after the start."""
    sent_at = SENT + timedelta(seconds=number)
    return Version(instance, f"{instance}/{number}", sent_at, digest or f"digest {number}")


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock as the order sees it; ``now`` may be moved."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(relay_order, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


async def settled():
    for _ in range(20):
        await asyncio.sleep(0)


# Turns


async def test_one_version_at_a_time_in_the_order_of_coming():
    order, log, go_on = VersionOrder(), [], asyncio.Event()

    async def work(number):
        async with order.turn("1.2.3"):
            log.append(("in", number))
            await go_on.wait()
            await asyncio.sleep(0)
            log.append(("out", number))

    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(work(number))
        await settled()
        assert log == [("in", 0)]
        go_on.set()
    assert log == [(step, number) for number in range(5) for step in ("in", "out")]
    assert not order._turns


async def test_other_instances_do_not_wait():
    order = VersionOrder()
    async with asyncio.timeout(30), order.turn("1.2.3"), order.turn("1.2.4"):
        assert set(order._turns) == {"1.2.3", "1.2.4"}
    assert not order._turns


async def test_cancellation_while_waiting_leaves_no_lock_behind():
    order, log = VersionOrder(), []

    async def work(number):
        async with order.turn("1.2.3"):
            log.append(number)

    async with order.turn("1.2.3"):
        first, second = asyncio.create_task(work(1)), asyncio.create_task(work(2))
        await settled()
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        assert first.cancelled()
        assert log == []
    async with asyncio.timeout(30):
        await second
    assert log == [2]
    assert not order._turns


async def test_cancellation_and_failure_inside_a_turn_free_it():
    order = VersionOrder()

    async def work():
        async with order.turn("1.2.3"):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await settled()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    with pytest.raises(ValueError, match="broken"):
        async with asyncio.timeout(30), order.turn("1.2.3"):
            raise ValueError("broken")
    assert not order._turns


# Waiting


def test_a_newer_version_waits_for_the_retry_of_an_older_one(clock):
    order = VersionOrder()
    assert order.wait(version(2)) is None
    order.failed(version(1), 60)
    order.failed(version(2), 10)
    clock.now += 5
    assert order.wait(version(3)) == pytest.approx(55.2)  # for the last of them
    assert order.wait(version(2)) == pytest.approx(55.2)
    assert order.wait(version(1)) is None
    assert order.wait(version(3, instance="1.2.4")) is None


@pytest.mark.parametrize("end", ["stored", "given_up"])
def test_waiting_ends_when_the_older_one_is_safe_or_a_dead_letter(clock, end):
    order = VersionOrder()
    order.failed(version(1), 60)
    getattr(order, end)(version(1))
    assert order.wait(version(2)) is None
    assert not order._due


def test_an_older_one_that_does_not_come_again_is_waited_for_a_little_longer_only(clock):
    order = VersionOrder()
    order.failed(version(1), 60)
    clock.now += 64
    assert order.wait(version(2)) == pytest.approx(0.2)
    clock.now += 2
    assert order.wait(version(2)) is None


def test_those_behind_a_waiting_one_wait_too_and_waiting_is_no_try(clock):
    order = VersionOrder()
    order.failed(version(1), 60)
    order.waits(version(2), 60.2)
    order.waits(version(2), 60.2)
    order.given_up(version(1))
    assert order.wait(version(3)) == pytest.approx(60.4)
    assert [order.tries(version(number).message, 3) for number in (1, 2)] == [3, 1]
    order.stored(version(2))
    assert not order._waits


# What is stored


def test_a_redelivery_of_what_is_stored_is_known():
    order = VersionOrder()
    order.stored(version(1))
    order.stored(version(2))
    assert order.is_stored(version(1))
    assert order.is_stored(version(2))
    assert not order.is_stored(version(3))


def test_the_same_bytes_in_a_newer_message_are_stored_but_a_return_to_older_bytes_is_new():
    order = VersionOrder()
    order.stored(version(2, digest="a"))
    assert order.is_stored(version(1, digest="a"))
    assert not order.is_stored(version(3, digest="a"))
    order.stored(version(3, digest="b"))
    assert not order.is_stored(version(4, digest="a"))
    assert order.newer(version(4, digest="a")) is None


def test_the_newest_stays_the_newest():
    order = VersionOrder()
    order.stored(version(3))
    order.stored(version(1))
    assert order.newer(version(2)) == version(3)
    assert order.newer(version(3)) is None
    assert order.newer(version(2, instance="1.2.4")) is None


def test_memory_of_finished_instances_is_bounded(monkeypatch, clock):
    monkeypatch.setattr(relay_order, "_REMEMBERED", 10)
    order = VersionOrder()
    for number in range(100):
        order.stored(version(number, instance=f"1.2.{number}"))
        order.waits(version(number, instance=f"1.3.{number}"), 60)
    remembered = (order._stored, order._newest, order._due, order._waits)
    assert [len(each) for each in remembered] == [10, 10, 10, 10]
    assert order.is_stored(version(90, instance="1.2.90"))
    assert not order.is_stored(version(89, instance="1.2.89"))


# The consumer that goes by it


class Delivery:
    """One delivery of a message from the stream, and what became of it."""

    def __init__(self, number, data, deliveries=1, sent=None):
        call = Call(Origin("a", "CT1", "OWN"), CT, "1.2.840.10008.1.2.1", store_request(CT, "1.2.3"))
        store = StoreMessage(call, f"m{number}", len(data), hashlib.sha256(data).hexdigest())
        self.headers, self.data, self.subject = store.headers(), data, "DIMSE.B.store.a"
        self.metadata = SimpleNamespace(
            timestamp=SENT + timedelta(microseconds=number if sent is None else sent),
            num_delivered=deliveries,
            stream="DIMSE-B-store",
            sequence=SimpleNamespace(stream=number),
        )
        self.outcome = []

    async def ack(self):
        self.outcome.append("ack")

    async def ack_sync(self, timeout):
        self.outcome.append("ack")

    async def nak(self, delay=None):
        self.outcome.append(("nak", delay))


class Receiver:
    """A consumer without a server: ``arrived`` is what the handler stored, ``dead`` the dead letters' headers."""

    def __init__(self):
        self.arrived, self.dead, self.answer, self.gate = [], [], STORED, None
        nats = NatsSettings(url="nats://127.0.0.1:1", subject_root="DIMSE")
        settings = RelaySettings(nats=nats, channel="B", max_tries=2)
        self.receiving = receiving = Receiving(SimpleNamespace(is_connected=False, max_payload=2**20), settings, self)
        place = RelayPlace(None, self, settings.receives, None)
        ends = AssociationEnds(place, self, receiving.is_away)
        self._consumer = StoreConsumer(place, receiving, ends, urgent=False)
        self._pull = SimpleNamespace(done=lambda message: None)

    async def publish(self, subject, payload, *, headers, stream):
        self.dead.append(headers)

    async def store(self, message, data):
        if self.gate is not None:
            await self.gate.wait()
        block = b"".join([block async for block in data()])
        if self.answer is STORED:
            self.arrived.append(block)
        return self.answer

    async def deliver(self, *args, **kwargs):
        delivery = Delivery(*args, **kwargs)
        await self._consumer._work(delivery, self._pull)
        return delivery.outcome


async def test_versions_under_way_together_are_stored_in_order():
    receiver = Receiver()
    receiver.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(receiver.deliver(number, b"%d" % number))
        await settled()
        receiver.gate.set()
    assert receiver.arrived == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_redelivery_is_only_acknowledged():
    receiver = Receiver()
    assert await receiver.deliver(1, b"old") == ["ack"]
    assert await receiver.deliver(2, b"new") == ["ack"]
    assert await receiver.deliver(1, b"old", deliveries=2) == ["ack"]
    assert (receiver.arrived, receiver.dead) == ([b"old", b"new"], [])


async def test_an_older_version_after_a_newer_one_is_a_dead_letter_and_its_redrive_replaces_the_newer():
    receiver = Receiver()
    await receiver.deliver(2, b"new")
    assert await receiver.deliver(1, b"old", deliveries=2) == ["ack"]
    assert receiver.arrived == [b"new"]
    (letter,) = receiver.dead
    assert letter["Imaging-Error"] == "Superseded"
    assert "later than this one" in letter["Imaging-Reason"]
    assert await receiver.deliver(1, b"old", sent=3) == ["ack"]  # a redrive sends it now
    assert receiver.arrived == [b"new", b"old"]


async def test_a_version_that_waited_has_all_its_tries(clock):
    receiver = Receiver()
    receiver.answer = FULL
    assert await receiver.deliver(1, b"old") == [("nak", 5.0)]
    assert await receiver.deliver(2, b"new") == [("nak", pytest.approx(5.2))]
    clock.now += 5.2
    assert await receiver.deliver(1, b"old", deliveries=2) == ["ack"]
    assert [letter["Imaging-Message"] for letter in receiver.dead] == ["m1"]
    assert await receiver.deliver(2, b"new", deliveries=2) == [("nak", 5.0)]  # its first try
    assert await receiver.deliver(2, b"new", deliveries=3) == ["ack"]
    assert [letter["Imaging-Tries"] for letter in receiver.dead] == ["2", "2"]


async def unreadable():
    raise DeadlineExceeded("reading from the relay's bucket: no answer in time")
    yield b""


async def test_only_trouble_of_the_receiver_stops_the_fetching(monkeypatch):
    receiver = Receiver()
    with monkeypatch.context() as line:
        line.setattr(relay_consumer, "content", lambda *args: unreadable)
        assert await receiver.deliver(1, b"far") == [("nak", 1.0)]
    assert not receiver.receiving.is_away()

    async def away(message, data):
        raise DeadlineExceeded("no answer in time")

    other = Receiver()
    other.receiving.handler = SimpleNamespace(store=away)
    assert await other.deliver(1, b"near") == [("nak", 1.0)]
    assert other.receiving.is_away()


async def test_a_version_from_the_future_is_of_now():
    receiver, seen = Receiver(), []

    async def store(message, data):
        seen.append(message.accepted_at)
        return STORED

    receiver.receiving.handler = SimpleNamespace(store=store)
    day = 24 * 3600 * 1_000_000
    ahead = (datetime.now(UTC) - SENT) // timedelta(microseconds=1) + day
    assert await receiver.deliver(1, b"data", sent=ahead) == ["ack"]
    assert seen[0] <= datetime.now(UTC)
