"""The event processor as a whole: real PostgreSQL, NATS and HTTP."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from imaging_services.adapters.http.manifest import HttpManifest
from imaging_services.adapters.nats.settings import EventLogSettings
from imaging_services.apps.event_driven_ingestion.main import main
from imaging_services.apps.event_driven_ingestion.settings import Settings, parse_duration
from imaging_services.domain.errors import Conflict, InvalidInput, SettingsError
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, IMAGE_STORED, STUDY_REVISION, CloudEvent
from imaging_services.domain.manifest.query import Level, Query, Scope
from imaging_services.local.ports import free_ports
from imaging_services.runtime import Lifecycle, load_settings
from imaging_services.wiring.events import open_event_log, open_sink
from support.manifest_events import stored


def environment(database, **others: str) -> dict[str, str]:
    return {
        "DB_HOST": database.host,
        "DB_PORT": str(database.port),
        "DB_NAME": database.name,
        "DB_USER": database.user,
        "DB_PASS": database.password,
        "EVENT_SOURCE": "edi.test",
        "STUDY_AGGREGATION_SCHEDULE": "100ms",
        "IMAGING_INGESTION_STUDY_AGGREGATION_TIMEOUTSECONDS": "2",
        "HTTP_PORT": str(free_ports(1)[0]),
        **others,
    }


@asynccontextmanager
async def processor(variables: dict[str, str]) -> AsyncIterator[str]:
    """A running processor's base URL."""
    settings, lifecycle = Settings(**variables), Lifecycle()
    running = asyncio.create_task(main(settings, lifecycle))
    ready = asyncio.create_task(lifecycle.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    assert ready.done(), running
    try:
        url = f"http://127.0.0.1:{settings.HTTP_PORT}"
        async with httpx.AsyncClient() as client:
            await until(lambda: answers(client, url))
        yield url
    finally:
        lifecycle.stop.set()
        await asyncio.wait_for(running, 30)


async def answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/query/counts")).status_code == 200
    except httpx.TransportError:
        return False


async def until(condition, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def consumed(settings: EventLogSettings) -> AsyncIterator[list[CloudEvent]]:
    """Everything that comes into the event log."""
    events: list[CloudEvent] = []

    async def take(event: CloudEvent) -> None:
        events.append(event)

    async with open_event_log(settings, "test") as log:
        types = frozenset({IMAGE_STORED, DICOM_AVAILABLE, STUDY_REVISION})
        task = asyncio.create_task(log.consume("test", types, take, concurrency=1))
        try:
            yield events
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def headers(event: CloudEvent) -> dict[str, str]:
    return {
        "ce-specversion": "1.0", "ce-type": event.type, "ce-source": event.source, "ce-id": event.id,
        "content-type": "application/json",
    }  # fmt: skip


async def test_two_processors_record_announce_and_revise(database, nats_server):
    stream = f"s{uuid.uuid4().hex}"
    events = {"EVENTS_NATS_URL": nats_server.url, "EVENTS_STREAM": stream}
    log_settings = EventLogSettings(**events)
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(processor(environment(database, **events))) for _ in range(2)]
        taken = await stack.enter_async_context(consumed(log_settings))
        sink = await stack.enter_async_context(open_sink(log_settings, "test"))
        query = HttpManifest(f"{urls[1]}/query")
        stack.push_async_callback(query.close)

        instances = [stored("1.2", "1.2.1", f"1.2.1.{number}") for number in range(100)]
        await asyncio.gather(*(sink.send(event) for event in instances))
        assert len(await query.locate(Scope("1.2"))) == 100
        (study,) = await query.search(Query(Level.STUDY, provider="north"))
        assert study["00201208"]["Value"] == [100]
        with pytest.raises(Conflict):
            await sink.send(stored("1.2", "1.2.1", "1.2.1.500", provider="south"))
        with pytest.raises(InvalidInput):
            await sink.send(CloudEvent(IMAGE_STORED, "s", "i", b"{"))

        await until(lambda: asyncio.sleep(0, len(taken) >= 201))
        await sink.send(instances[0])
        await asyncio.sleep(2.5)  # in which another revision would have been made
        by_type = {kind: [one for one in taken if one.type == kind] for kind in (IMAGE_STORED, DICOM_AVAILABLE)}
        assert sorted(one.id for one in by_type[IMAGE_STORED]) == sorted(one.id for one in instances)
        assert len(by_type[DICOM_AVAILABLE]) == 100
        (revision,) = [one for one in taken if one.type == STUDY_REVISION]
        assert revision.source == "edi.test"
        assert len(json.loads(revision.data)["changeSet"]["additions"]) == 100


async def test_http_ingress_answers_after_the_commit_and_names_what_is_wrong(database, nats_server):
    events = {"EVENTS_NATS_URL": nats_server.url, "EVENTS_STREAM": f"s{uuid.uuid4().hex}"}
    async with processor(environment(database, **events)) as url, httpx.AsyncClient(base_url=url) as client:
        event = stored("1.2", "1.2.1", "1.2.1.1")
        answer = await client.post("/", content=event.data, headers=headers(event))
        assert (answer.status_code, answer.content) == (204, b"")
        assert (await client.get("/query/counts")).json()["instances"] == 1

        structured = {"specversion": "1.0", "type": event.type, "source": "s", "id": "2",
                      "datacontenttype": "application/json",
                      "data": json.loads(stored("1.2", "1.2.1", "1.2.1.2").data)}  # fmt: skip
        answer = await client.post("/events", json=structured, headers={"content-type": "application/cloudevents+json"})
        assert answer.status_code == 204
        batch = [structured, {**structured, "id": "3", "data": json.loads(stored("1.2", "1.2.1", "1.2.1.3").data)}]
        answer = await client.post("/", json=batch, headers={"content-type": "application/cloudevents-batch+json"})
        assert answer.status_code == 204
        assert (await client.get("/query/counts")).json()["instances"] == 3

        for content, changed, words in (
            (b"{", {}, "JSON"),
            (event.data, {"ce-type": "Unheard"}, "Unheard"),
            (b"{}", {}, "image"),
        ):
            answer = await client.post("/", content=content, headers=headers(event) | changed)
            assert answer.status_code == 400
            assert words in answer.text
        theirs = stored("1.2", "1.2.1", "1.2.1.9", provider="south")
        answer = await client.post("/", content=theirs.data, headers=headers(theirs))
        assert answer.status_code == 409
        answer = await client.post("/query/search", content=b'{"level": "GALAXY"}')
        assert answer.status_code == 400
        assert answer.json()["error"] == "InvalidInput"


async def test_so_many_requests_are_under_way_at_once(database, nats_server):
    events = {"EVENTS_NATS_URL": nats_server.url, "EVENTS_STREAM": f"s{uuid.uuid4().hex}"}
    event = stored("1.2", "1.2.1", "1.2.1.1")
    head = "".join(f"{name}: {value}\r\n" for name, value in headers(event).items())
    variables = environment(database, **events, HTTP_CONCURRENCY="1")
    async with processor(variables) as url, httpx.AsyncClient(base_url=url) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(variables["HTTP_PORT"]))
        length = f"content-length: {len(event.data)}\r\n"
        writer.write(f"POST / HTTP/1.1\r\nhost: edi\r\n{head}{length}\r\n".encode())

        async def is_full() -> bool:
            return (await client.get("/query/counts")).status_code == 503

        await until(is_full)
        writer.write(event.data)
        async with asyncio.timeout(60):
            assert (await reader.readline()).split()[1] == b"204"
        writer.close()

        async def has_room() -> bool:
            return (await client.get("/query/counts")).status_code == 200

        await until(has_room)
        assert (await client.get("/query/counts")).json()["instances"] == 1


async def test_without_nats_events_are_posted_to_the_broker(database):
    taken: list[tuple[str, bytes]] = []
    failures = [503, 503]
    broker = FastAPI()

    @broker.post("/")
    async def take(request: Request) -> Response:
        if failures:
            return Response(status_code=failures.pop())
        taken.append((request.headers["ce-type"], await request.body()))
        return Response(status_code=202)

    server = uvicorn.Server(uvicorn.Config(broker, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server._serve())
    await until(lambda: asyncio.sleep(0, server.started))
    sink = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    event = stored("1.2", "1.2.1", "1.2.1.1")
    try:
        async with processor(environment(database, K_SINK=sink)) as url, httpx.AsyncClient() as client:
            answer = await client.post(url, content=event.data, headers=headers(event))
            assert (answer.status_code, answer.content) == (204, b"")
            await until(lambda: asyncio.sleep(0, len(taken) == 2))
    finally:
        server.should_exit = True
        await serving
    assert [kind for kind, _ in taken] == [DICOM_AVAILABLE, STUDY_REVISION]


def test_settings_say_what_is_wrong(database, monkeypatch):
    good = environment(database, K_SINK="http://broker.test/")
    for changed, words in (
        ({"DB_KIND": "db2"}, "move the manifest to PostgreSQL"),
        ({"DB_HOST": ""}, "DB_HOST"),
        ({"K_SINK": ""}, "EVENTS_NATS_URL"),
        ({"STUDY_AGGREGATION_SCHEDULE": "often"}, "STUDY_AGGREGATION_SCHEDULE"),
        ({"DATASOURCE_MIN_SIZE": "9", "DATASOURCE_MAX_SIZE": "3"}, "DATASOURCE_MIN_SIZE"),
    ):
        with monkeypatch.context() as patch:
            for name, value in (good | changed).items():
                patch.setenv(name, value)
            with pytest.raises(SettingsError, match=words):
                load_settings(Settings)


@pytest.mark.parametrize(("given", "seconds"), [("0", 30), ("-5", 30), ("7.5", 7.5)])
def test_a_quiet_time_of_zero_or_less_is_the_default(database, given, seconds):
    variables = environment(database, K_SINK="http://b.test") | {
        "IMAGING_INGESTION_STUDY_AGGREGATION_TIMEOUTSECONDS": given
    }
    assert Settings(**variables).quiet == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("1m", 60), ("2", 2), ("PT5S", 5), ("1h", 3600)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)
