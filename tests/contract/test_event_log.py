"""What every event log does: the one in memory and the one on JetStream."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from imaging_services.adapters.memory.event_log import MemoryEventLog
from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.events import JetStreamEventLog
from imaging_services.adapters.nats.policy import EventPolicy
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.domain.errors import BackendUnavailable, Refused
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, STUDY_REVISION, CloudEvent
from imaging_services.domain.events.subjects import EventSubjects
from imaging_services.domain.ports import EventLog
from support.events import an_event, an_urgent_event, consuming, eventually, letters, letters_arrive
from support.servers import Nats

_DELAYS = (0.05, 0.1)
_MAX_TRIES = 4


@pytest.fixture(params=["memory", "jetstream"])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[EventLog]:
    if request.param == "memory":
        yield MemoryEventLog(retry_delays=_DELAYS, max_tries=_MAX_TRIES)
        return
    server: Nats = request.getfixturevalue("nats_server")
    policy = EventPolicy(retry_delays=_DELAYS, max_tries=_MAX_TRIES, ack_wait=timedelta(seconds=5))
    async with connect(NatsSettings(url=server.url, subject_root="contract")) as client:
        yield JetStreamEventLog(client, EventSubjects("contract", f"log-{uuid.uuid4().hex}"), policy)


class Recorder:
    """A handler that remembers, and fails as told."""

    def __init__(self, *errors: Exception | None) -> None:
        self.events: list[CloudEvent] = []
        self._errors = list(errors)

    async def __call__(self, event: CloudEvent) -> None:
        self.events.append(event)
        if self._errors and (error := self._errors.pop(0)) is not None:
            raise error

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]


async def test_an_event_arrives_as_it_was_appended(log: EventLog) -> None:
    sent = CloudEvent(
        type=DICOM_AVAILABLE,
        source="søurce 100%",
        id=str(uuid.uuid4()),
        data='{"provider":"Nörd"}'.encode(),
        extensions={"bridgeorigin": "north"},
    )
    await log.append([sent])
    seen = Recorder()
    async with consuming(log, "all", seen):
        await eventually(lambda: seen.events)
    assert seen.events == [sent]


async def test_a_consumer_gets_its_types_in_order(log: EventLog) -> None:
    wanted = [an_event(number=number) for number in range(600)]
    other = an_event(STUDY_REVISION)
    await log.append([*wanted[:300], other, *wanted[300:]])
    seen = Recorder()
    async with consuming(log, "instances", seen, concurrency=1):
        await eventually(lambda: len(seen.events) >= 600)
        await asyncio.sleep(0.1)
    assert seen.ids == [event.id for event in wanted]


async def test_urgent_events_overtake_those_that_wait_and_keep_their_own_order(log: EventLog) -> None:
    backlog = [an_event(number=number) for number in range(300)]
    urgent = [an_urgent_event(number) for number in range(3)]
    seen, appended = Recorder(), asyncio.Event()

    async def slow(event: CloudEvent) -> None:
        await seen(event)
        await appended.wait()
        await asyncio.sleep(0.005)

    await log.append(backlog)
    async with consuming(log, "slow", slow, concurrency=1):
        await eventually(lambda: seen.events)
        await log.append(urgent)
        appended.set()
        await eventually(lambda: len(seen.events) == 303)
    assert [one for one in seen.events if one in urgent] == urgent
    assert seen.ids.index(urgent[-1].id) < 250
    assert [one.id for one in seen.events if one not in urgent] == [one.id for one in backlog]


async def test_an_urgent_event_that_failed_comes_again_and_becomes_a_dead_letter(log: EventLog) -> None:
    event = an_urgent_event()
    await log.append([event])
    seen = Recorder(*[BackendUnavailable("away")] * 9)
    async with consuming(log, "tired", seen):
        (letter,) = await letters_arrive(log, 1)
    assert (letter.event, letter.consumer, letter.attempts) == (event, "tired", _MAX_TRIES)


async def test_every_consumer_gets_every_event(log: EventLog) -> None:
    event = an_event()
    one, two = Recorder(), Recorder()
    async with consuming(log, "one", one), consuming(log, "two", two):
        await log.append([event])
        await eventually(lambda: one.events and two.events)
    assert one.ids == two.ids == [event.id]


async def test_the_same_id_is_kept_once(log: EventLog) -> None:
    event = an_event()
    await log.append([event, event])
    await log.append([event])
    seen = Recorder()
    async with consuming(log, "once", seen):
        await eventually(lambda: seen.events)
        await asyncio.sleep(0.2)
    assert seen.ids == [event.id]


@pytest.mark.parametrize("error", [BackendUnavailable("away"), RuntimeError("unforeseen")])
async def test_what_may_succeed_later_is_tried_again(log: EventLog, error: Exception) -> None:
    event = an_event()
    await log.append([event])
    seen = Recorder(error, error)
    async with consuming(log, "patient", seen):
        await eventually(lambda: len(seen.events) == 3)
        await asyncio.sleep(0.3)
    assert seen.ids == [event.id] * 3
    assert await letters(log) == []


async def test_what_cannot_succeed_becomes_a_dead_letter_and_the_rest_flows(log: EventLog) -> None:
    poison, *rest = [an_event(number=number) for number in range(20)]
    await log.append([poison, *rest])
    seen = Recorder(Refused("the archive said nö\nfor good"))
    async with consuming(log, "site.a/b", seen, concurrency=1):
        await eventually(lambda: len(seen.events) == 20)
        (letter,) = await letters_arrive(log, 1)
    assert (letter.event, letter.consumer, letter.attempts) == (poison, "site.a/b", 1)
    assert letter.reason == "the archive said nö\nfor good"
    assert await letters(log, "someone-else") == []
    assert seen.ids == [poison.id, *(event.id for event in rest)]


async def test_the_last_try_makes_a_dead_letter(log: EventLog) -> None:
    event = an_event()
    await log.append([event])
    seen = Recorder(*[BackendUnavailable("still away")] * 9)
    async with consuming(log, "tired", seen):
        (letter,) = await letters_arrive(log, 1)
    assert (letter.event, letter.reason, letter.attempts) == (event, "still away", _MAX_TRIES)
    assert len(seen.events) == _MAX_TRIES


async def test_events_that_wait_for_another_try_do_not_hold_up_others(log: EventLog) -> None:
    bad = [an_event(number=number) for number in range(5)]
    failing = {event.id for event in bad}
    good = [an_event(number=number) for number in range(50)]
    done: list[str] = []

    async def handler(event: CloudEvent) -> None:
        if event.id in failing:
            raise BackendUnavailable("never works")
        done.append(event.id)

    await log.append([*bad, *good])
    async with consuming(log, "mixed", handler, concurrency=2):
        await eventually(lambda: len(done) == 50)
        assert len(await letters_arrive(log, 5)) == 5


@pytest.mark.parametrize("event", [an_event(), an_urgent_event()], ids=["normal", "urgent"])
async def test_a_redriven_event_goes_to_its_own_consumer_only_and_as_often_as_asked(
    log: EventLog, event: CloudEvent
) -> None:
    await log.append([event])
    failing, other = Recorder(Refused("no"), Refused("still no")), Recorder()
    async with consuming(log, "failing", failing), consuming(log, "other", other):
        await letters_arrive(log, 1)
        assert await log.redrive("other") == 0
        assert await log.redrive("failing", [999_999]) == 0
        assert await log.redrive() == 1
        (letter,) = await letters_arrive(log, 1)
        assert letter.reason == "still no"
        assert await log.redrive("failing", [letter.sequence]) == 1
        await eventually(lambda: len(failing.events) == 3)
        await asyncio.sleep(0.2)
    assert failing.ids == [event.id] * 3
    assert other.ids == [event.id]
    assert await letters(log) == []


async def test_a_consumer_goes_on_where_it_stopped(log: EventLog) -> None:
    first, second = an_event(), an_event()
    await log.append([first])
    seen = Recorder()
    async with consuming(log, "resuming", seen):
        await eventually(lambda: seen.events)
    await log.append([second])
    async with consuming(log, "resuming", seen):
        await eventually(lambda: len(seen.events) == 2)
        await asyncio.sleep(0.2)
    assert seen.ids == [first.id, second.id]


async def test_cancelled_it_finishes_what_is_in_the_handler(log: EventLog) -> None:
    begun, finish, done = asyncio.Event(), asyncio.Event(), []

    async def handler(event: CloudEvent) -> None:
        begun.set()
        await finish.wait()
        done.append(event.id)

    event, late = an_event(), an_event()
    await log.append([event])
    async with consuming(log, "slow", handler, concurrency=1) as consumer:
        await begun.wait()
        consumer.cancel()
        await log.append([late])
        await asyncio.sleep(0.1)
        assert not consumer.done()
        finish.set()
        with pytest.raises(asyncio.CancelledError):
            await consumer
    assert done == [event.id]
    seen = Recorder()
    async with consuming(log, "slow", seen):
        await eventually(lambda: seen.events)
        await asyncio.sleep(0.2)
    assert seen.ids == [late.id]


async def test_no_more_events_in_the_handler_than_allowed(log: EventLog) -> None:
    now = most = 0

    async def handler(event: CloudEvent) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    done = Recorder()

    async def counted(event: CloudEvent) -> None:
        await handler(event)
        await done(event)

    await log.append([an_event(number=number) for number in range(30)])
    await log.append([an_urgent_event(number) for number in range(30)])
    async with consuming(log, "bounded", counted, concurrency=3):
        await eventually(lambda: len(done.events) == 60)
    assert most == 3
