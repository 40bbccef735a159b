"""The event log on a real NATS server: restarts, lost streams, strange messages, long handlers, long events."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import nats
import orjson
import pytest
from nats.js.api import StoreCompression, StreamConfig
from nats.js.errors import NotFoundError

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.events import JetStreamEventLog
from imaging_services.adapters.nats.policy import EventPolicy
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.adapters.nats.streams import covered
from imaging_services.adapters.nats.types import NatsClient
from imaging_services.domain.errors import BackendUnavailable, InvalidInput, Refused, RetryableError
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, STUDY_REVISION, CloudEvent
from imaging_services.domain.events.subjects import EventSubjects
from support.events import an_event, an_urgent_event, consuming, eventually, letters, letters_arrive
from support.nats_process import NatsProcess
from support.ports import a_free_port
from support.servers import Nats

_POLICY = EventPolicy(retry_delays=(0.05, 0.1), max_tries=3, ack_wait=timedelta(seconds=1))


@pytest.fixture
async def client(nats_server: Nats) -> AsyncIterator[NatsClient]:
    async with connect(NatsSettings(url=nats_server.url, subject_root="jetstream")) as client:
        yield client


@pytest.fixture
def subjects() -> EventSubjects:
    return EventSubjects("jetstream", f"log-{uuid.uuid4().hex}")


@pytest.fixture
def log(client: NatsClient, subjects: EventSubjects) -> JetStreamEventLog:
    return JetStreamEventLog(client, subjects, _POLICY)


async def test_the_log_may_be_in_the_domain_of_another_server(tmp_path: Path) -> None:
    for name in ("hub", "edge"):
        (tmp_path / name).mkdir()
    port, got, subjects = a_free_port(), list[str](), EventSubjects("far", "edi")
    failing = an_event(number=2)

    async def handler(event: CloudEvent) -> None:
        if event.id == failing.id and not got.count(event.id):
            got.append(event.id)
            raise Refused("no")
        got.append(event.id)

    leaf = f'leafnodes {{ remotes: [{{ url: "nats://127.0.0.1:{port}" }}], reconnect: 1s }}'
    with (
        NatsProcess(tmp_path / "hub", domain="hub", more=f"leafnodes {{ listen: 127.0.0.1:{port} }}") as hub,
        NatsProcess(tmp_path / "edge", domain="edge", more=leaf) as edge,
    ):
        async with connect(NatsSettings(url=edge.url, subject_root="far")) as client:
            log = JetStreamEventLog(client, subjects, replace(_POLICY, domain="hub"))
            async with asyncio.timeout(60):
                while True:  # until the leaf node has reached the hub
                    try:
                        await log.append([one := an_event(number=1), failing])
                        break
                    except RetryableError:
                        await asyncio.sleep(0.1)
            async with consuming(log, "binding", handler):
                await letters_arrive(log, 1)
                assert await log.redrive() == 1
                await eventually(lambda: len(got) == 3)
            with pytest.raises(NotFoundError):
                await client.jetstream().stream_info(subjects.event_stream)
        async with connect(NatsSettings(url=hub.url, subject_root="far")) as client:
            assert (await client.jetstream().stream_info(subjects.event_stream)).state.messages >= 2
    assert sorted(got) == sorted([one.id, failing.id, failing.id])


async def test_nothing_is_lost_when_the_server_restarts_while_events_are_appended_and_consumed(tmp_path: Path) -> None:
    sent = [an_event(number=number) for number in range(400)]
    got: set[str] = set()

    async def handler(event: CloudEvent) -> None:
        await asyncio.sleep(0.005)
        got.add(event.id)

    async def produce(log: JetStreamEventLog) -> None:
        for start in range(0, len(sent), 20):
            batch = sent[start : start + 20]
            while True:
                try:
                    await log.append(batch)
                except RetryableError:
                    await asyncio.sleep(0.1)
                    continue
                break
            await asyncio.sleep(0.02)

    with NatsProcess(tmp_path) as server:
        async with connect(NatsSettings(url=server.url, subject_root="restart")) as client:
            log = JetStreamEventLog(client, EventSubjects("restart", "edi"), _POLICY)
            async with consuming(log, "binding", handler, concurrency=4), asyncio.TaskGroup() as tasks:
                tasks.create_task(produce(log))
                await eventually(lambda: len(got) > 40)
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.start)
                await eventually(lambda: len(got) == len(sent), seconds=40)
            assert await letters(log) == []
    assert got == {event.id for event in sent}


async def test_a_lost_stream_is_made_again(client: NatsClient, log: JetStreamEventLog, subjects: EventSubjects) -> None:
    before, after = an_event(), an_event()
    seen: list[str] = []

    async def handler(event: CloudEvent) -> None:
        seen.append(event.id)

    async with consuming(log, "binding", handler):
        await log.append([before])
        await eventually(lambda: seen == [before.id])
        await client.jetstream().delete_stream(subjects.event_stream)
        await log.append([after])
        await eventually(lambda: seen == [before.id, after.id], seconds=30)


async def test_the_stream_is_widened_and_never_narrowed(client: NatsClient, subjects: EventSubjects) -> None:
    js = client.jetstream()
    foreign = f"jetstream.foreign.{subjects.stream}"
    await js.add_stream(StreamConfig(name=subjects.event_stream, subjects=[foreign], max_age=86400))
    await JetStreamEventLog(client, subjects, replace(_POLICY, retention=timedelta(days=7))).prepare()
    await JetStreamEventLog(client, subjects, replace(_POLICY, retention=timedelta(days=1))).prepare()
    config = (await js.stream_info(subjects.event_stream)).config
    assert set(config.subjects or []) == {foreign, subjects.all_events, subjects.all_redrives, subjects.all_urgent}
    assert config.max_age == 7 * 86400


async def test_a_log_is_compressed_on_disk(tmp_path: Path) -> None:
    header = orjson.dumps({"elements": [{"group": "0009", "element": f"{n:04X}", "vr": "LO"} for n in range(300)]})
    events = [replace(an_event(), data=header) for _ in range(700)]
    seen: list[str] = []

    async def handler(event: CloudEvent) -> None:
        seen.append(event.id)

    with NatsProcess(tmp_path) as server:
        async with connect(NatsSettings(url=server.url, subject_root="small")) as client:
            log = JetStreamEventLog(client, EventSubjects("small", "edi"), _POLICY)
            await log.append(events)
            # Blocks of 8 MB are compressed when they are full; the last one is not.
            await eventually(lambda: sum(file.stat().st_size for file in tmp_path.rglob("*.blk")) < 4_000_000)
            async with consuming(log, "binding", handler):
                await eventually(lambda: len(seen) == 700)
    assert len(header) * 700 > 8 * 1024 * 1024
    assert set(seen) == {event.id for event in events}


async def test_a_log_of_a_former_version_is_compressed_from_now_on_and_stays_so(
    client: NatsClient, log: JetStreamEventLog, subjects: EventSubjects
) -> None:
    plain = JetStreamEventLog(client, subjects, replace(_POLICY, compressed=False))
    compressions = []
    for one in (plain, log, plain):
        await one.prepare()
        compressions.append((await client.jetstream().stream_info(subjects.event_stream)).config.compression)
    assert compressions == [StoreCompression.NONE, StoreCompression.S2, StoreCompression.S2]


@pytest.mark.parametrize(
    ("pattern", "is_covered"),
    [("a.*.c", True), ("a.>", True), (">", True), ("a.b.c", True), ("a.b", False), ("a.b.c.>", False), ("a.*", False)],
)
def test_a_pattern_covers_a_subject(pattern: str, is_covered: bool) -> None:
    assert covered("a.b.c", [pattern]) is is_covered


async def test_a_message_that_is_no_event_becomes_a_dead_letter_and_can_be_looked_at(
    client: NatsClient, log: JetStreamEventLog, subjects: EventSubjects
) -> None:
    await log.prepare()
    js = client.jetstream()
    await js.publish(subjects.event(DICOM_AVAILABLE), b"not an event")
    broken = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": DICOM_AVAILABLE}
    await js.publish(subjects.event(DICOM_AVAILABLE), b'{"broken', headers=broken)
    good = an_event()
    await log.append([good])
    seen: list[str] = []

    async def handler(event: CloudEvent) -> None:
        seen.append(event.id)

    async with consuming(log, "binding", handler):
        await eventually(lambda: seen == [good.id])
        # Several are handled at once, so that the letters come in any order.
        without_headers, broken_data = sorted(await letters_arrive(log, 2), key=lambda one: "not JSON" in one.reason)
        assert "no ce- headers" in without_headers.reason
        assert without_headers.event.type == "UnreadableMessage"
        assert orjson.loads(without_headers.event.data) == {"body": "bm90IGFuIGV2ZW50"}
        assert "not JSON" in broken_data.reason
        # Put back as it was, it is refused again: nothing is lost on the way.
        assert await log.redrive() == 2
        again = await letters_arrive(log, 2)
        assert {letter.reason for letter in again} == {without_headers.reason, broken_data.reason}


async def test_a_long_handler_is_not_taken_for_dead(log: JetStreamEventLog) -> None:
    calls = 0

    async def handler(event: CloudEvent) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(2 * _POLICY.ack_wait.total_seconds())

    async with consuming(log, "binding", handler, concurrency=2):
        await log.append([an_event()])
        await eventually(lambda: calls)
        await asyncio.sleep(2.5 * _POLICY.ack_wait.total_seconds())
    assert calls == 1


async def test_a_revision_of_a_huge_study_passes_though_larger_than_a_message_may_be(tmp_path: Path) -> None:
    uids = [f"1.2.826.0.1.3680043.8.498.{uuid.uuid4().int}" for _ in range(2_000)]
    data = orjson.dumps({"instances": [{"sopInstanceUID": f"{uid}.{number}"} for uid in uids for number in range(20)]})
    event = CloudEvent(type=STUDY_REVISION, source="processor", id="revision-1", data=data)
    random = orjson.dumps({"noise": [uuid.uuid4().hex for _ in range(100_000)]})
    hopeless = replace(event, id="revision-2", data=random)
    seen: list[CloudEvent] = []

    async def handler(event: CloudEvent) -> None:
        seen.append(event)

    with NatsProcess(tmp_path, max_payload=1024 * 1024) as server:
        async with connect(NatsSettings(url=server.url, subject_root="large")) as client:
            log = JetStreamEventLog(client, EventSubjects("large", "edi"), _POLICY)
            with pytest.raises(InvalidInput, match=r"revision-2 of .* is larger"):
                await log.append([hopeless, event])
            async with consuming(log, "binding", handler, frozenset({STUDY_REVISION})):
                await eventually(lambda: seen)
    assert len(data) > 2 * 1024 * 1024
    assert seen == [event]


async def test_changed_types_are_applied_to_the_consumer_that_is_there(log: JetStreamEventLog) -> None:
    seen: list[str] = []

    async def handler(event: CloudEvent) -> None:
        seen.append(event.type)

    async with consuming(log, "binding", handler, frozenset({DICOM_AVAILABLE})):
        await log.append([an_event(DICOM_AVAILABLE)])
        await eventually(lambda: seen == [DICOM_AVAILABLE])
    async with consuming(log, "binding", handler, frozenset({STUDY_REVISION})):
        await log.append([an_event(DICOM_AVAILABLE), an_event(STUDY_REVISION)])
        await eventually(lambda: seen[1:] == [STUDY_REVISION])


async def test_a_consumer_may_begin_with_what_is_new(client: NatsClient, subjects: EventSubjects) -> None:
    log = JetStreamEventLog(client, subjects, replace(_POLICY, deliver_from="new"))
    old, new = an_event(), an_event()
    await log.append([old])
    seen: list[str] = []

    async def handler(event: CloudEvent) -> None:
        seen.append(event.id)

    async with consuming(log, "late", handler):
        await asyncio.sleep(0.5)
        await log.append([new])
        await eventually(lambda: seen)
    async with consuming(log, "late", handler):
        await asyncio.sleep(0.3)
    assert seen == [new.id]


async def test_what_waits_for_a_hand_is_given_back_at_the_end_and_not_taken_for_dead_before(
    log: JetStreamEventLog,
) -> None:
    backlog = [an_event(number=number) for number in range(3)]
    urgent = [an_urgent_event(number) for number in range(2)]
    begun: list[str] = []
    finish = asyncio.Event()

    async def handler(event: CloudEvent) -> None:
        begun.append(event.id)
        await finish.wait()

    await log.append(urgent)
    async with consuming(log, "binding", handler, concurrency=2) as consumer:
        await eventually(lambda: len(begun) == 2)
        await log.append(backlog)
        await asyncio.sleep(2.5 * _POLICY.ack_wait.total_seconds())
        consumer.cancel()
        for _ in range(50):  # turns of the loop, not a time: it is told before a hand becomes free
            await asyncio.sleep(0)
        finish.set()
        with pytest.raises(asyncio.CancelledError):
            await consumer
    assert begun == [one.id for one in urgent]
    async with consuming(log, "binding", handler):
        await eventually(lambda: len(begun) == 5)
    assert sorted(begun) == sorted(one.id for one in [*urgent, *backlog])


async def test_names_that_nats_refuses_are_kept_apart(log: JetStreamEventLog) -> None:
    event = an_event()
    await log.append([event])

    async def refuse(event: CloudEvent) -> None:
        raise Refused("no")

    for name in ("a.b", "a-b", "a b", "ä>*"):
        async with consuming(log, name, refuse):
            await letters_arrive(log, 1, name)
    assert [letter.consumer for letter in await letters(log)] == ["a.b", "a-b", "a b", "ä>*"]


async def test_redrive_is_interrupted_and_repeated_without_a_second_delivery(
    client: NatsClient, log: JetStreamEventLog, subjects: EventSubjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = an_event()
    await log.append([event])
    calls: list[str] = []

    async def handler(event: CloudEvent) -> None:
        calls.append(event.id)
        if len(calls) == 1:
            raise Refused("no")

    async def cut(*args: object) -> bool:
        raise nats.errors.ConnectionClosedError

    async with consuming(log, "binding", handler):
        await letters_arrive(log, 1)
        with monkeypatch.context() as patched:
            patched.setattr("nats.js.manager.JetStreamManager.delete_msg", cut)
            with pytest.raises(BackendUnavailable):
                await log.redrive()
        await eventually(lambda: len(calls) == 2)
        assert len(await letters(log)) == 1
        assert await log.redrive() == 1
        await asyncio.sleep(0.5)
    assert calls == [event.id, event.id]
    assert await letters(log) == []
