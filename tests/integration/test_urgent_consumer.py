"""The second durable consumer, of urgent events, on a real NATS server: where it begins, and when there is none."""

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from structlog.testing import capture_logs

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.events import JetStreamEventLog
from imaging_services.adapters.nats.policy import EventPolicy
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.adapters.nats.types import NatsClient
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, CloudEvent
from imaging_services.domain.events.subjects import EventSubjects
from support.events import an_event, an_urgent_event, consuming, eventually
from support.servers import Nats

_POLICY = EventPolicy(ack_wait=timedelta(seconds=1))


@pytest.fixture
async def client(nats_server: Nats) -> AsyncIterator[NatsClient]:
    async with connect(NatsSettings(url=nats_server.url, subject_root="urgent")) as client:
        yield client


@pytest.fixture
def subjects() -> EventSubjects:
    return EventSubjects("urgent", f"log-{uuid.uuid4().hex}")


@pytest.fixture
def log(client: NatsClient, subjects: EventSubjects) -> JetStreamEventLog:
    return JetStreamEventLog(client, subjects, _POLICY)


@pytest.mark.parametrize("begin", [DeliverPolicy.ALL, DeliverPolicy.NEW])
async def test_a_consumer_of_a_former_version_gets_the_urgent_events_that_came_before_it_was_upgraded(
    client: NatsClient, log: JetStreamEventLog, subjects: EventSubjects, begin: DeliverPolicy
) -> None:
    js = client.jetstream()
    former = [subjects.all_events, subjects.all_redrives]
    await js.add_stream(StreamConfig(name=subjects.event_stream, subjects=former))
    await log.append([before := an_urgent_event()])
    durable = ConsumerConfig(
        durable_name="binding",
        filter_subjects=[subjects.event(DICOM_AVAILABLE), subjects.redrive("binding")],
        deliver_policy=begin,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=1,
        max_deliver=-1,
        max_ack_pending=50_000,
    )
    await js.add_consumer(subjects.event_stream, durable)
    await log.append([urgent := an_urgent_event()])
    seen: list[str] = []

    async def handler(event: CloudEvent) -> None:
        seen.append(event.id)

    expected = [before.id, urgent.id] if begin == DeliverPolicy.ALL else [urgent.id]
    async with consuming(log, "binding", handler):
        await eventually(lambda: seen == expected)
    await log.append([again := an_urgent_event()])
    async with consuming(log, "binding", handler):
        await eventually(lambda: seen == [*expected, again.id])


async def test_without_a_consumer_for_urgent_events_the_others_go_on(
    client: NatsClient, log: JetStreamEventLog, subjects: EventSubjects
) -> None:
    """As where the server limits consumers; once there is room for it, the urgent ones come too."""
    js, stream = client.jetstream(), subjects.event_stream
    await js.add_stream(StreamConfig(name=stream, subjects=[subjects.all_events], max_consumers=2))
    await js.add_consumer(stream, ConsumerConfig(durable_name="foreign", ack_policy=AckPolicy.EXPLICIT))
    await log.prepare()
    await log.append([urgent := an_urgent_event(), *(others := [an_event(number=number) for number in range(3)])])
    seen: list[str] = []
    requests = await client.subscribe(f"$JS.API.CONSUMER.CREATE.{stream}.*")

    async def handler(event: CloudEvent) -> None:
        seen.append(event.id)

    with capture_logs() as lines:
        async with consuming(log, "binding", handler, concurrency=1):
            await eventually(lambda: len(seen) == 3)
            await eventually(lambda: any(line["event"] == "event consumer interrupted" for line in lines))
            assert seen == [one.id for one in others]
            await eventually(lambda: requests.pending_msgs > 3)
            await js.delete_consumer(stream, "foreign")
            await eventually(lambda: seen[3:] == [urgent.id])
    (told,) = [line for line in lines if line["event"] == "event consumer interrupted"]
    assert (told["urgent"], "consumers" in told["error"]) == (True, True)
    asked = [(await requests.next_msg()).subject.rpartition(".")[2] for _ in range(requests.pending_msgs)]
    assert asked.count("binding") <= 2, "the server writes the consumer's file at each"
