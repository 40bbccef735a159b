"""What every event sink does: the one over NATS and the one over HTTP, each with a processor's ingress behind it, and
the one that records by itself."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
from fastapi import FastAPI

from imaging_services.adapters.http.cloudevents import event_router
from imaging_services.adapters.http.sink import HttpEventSink
from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.ingress import serve_ingress
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.adapters.nats.sink import NatsEventSink
from imaging_services.domain.errors import (
    BackendUnavailable,
    Conflict,
    ImagingError,
    InvalidInput,
    MissingIdentifier,
    ObjectDeleted,
    PermanentError,
    RetryableError,
    Superseded,
)
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.subjects import EventSubjects
from imaging_services.domain.ports import EventSink
from imaging_services.wiring.direct import DirectSink, Schema
from imaging_services.wiring.record import BatchRecorder
from support.events import an_event, in_background
from support.http_server import serving
from support.nats_process import NatsProcess
from support.ports import a_free_port
from support.servers import Nats

Handle = Callable[[CloudEvent], Awaitable[None]]
Processor = Callable[[Handle], AbstractAsyncContextManager[None]]


class Way:
    """A sink, and how to run a processor that it reaches."""

    def __init__(self, sink: EventSink, processor: Processor) -> None:
        self.sink = sink
        self.processor = processor


@pytest.fixture
def patience() -> float:
    """Seconds that a sink tries for: long enough for a busy machine."""
    return 60


@pytest.fixture(params=["nats", "http", "direct"])
async def way(request: pytest.FixtureRequest, patience: float) -> AsyncIterator[Way]:
    async with AsyncExitStack() as stack:
        if request.param == "nats":
            server: Nats = request.getfixturevalue("nats_server")
            made = await _nats_way(server.url, patience, stack)
        elif request.param == "direct":
            made = await _direct_way(request.getfixturevalue("nats_server").url, patience, stack)
        else:
            made = _http_way(patience)
        yield made
        await made.sink.close()


async def _nats_way(url: str, patience: float, stack: AsyncExitStack) -> Way:
    subjects = EventSubjects("sinks", f"edi-{uuid.uuid4().hex}")
    settings = NatsSettings(url=url, subject_root="sinks")
    client = await stack.enter_async_context(connect(settings))

    @asynccontextmanager
    async def processor(handle: Handle) -> AsyncIterator[None]:
        started = asyncio.Event()
        async with connect(settings) as own:
            ingress = serve_ingress(own, subjects.root, subjects.stream, handle, started=started)
            async with in_background(ingress):
                await started.wait()
                yield

    return Way(NatsEventSink(client, subjects, timeout=patience), processor)


def _http_way(patience: float) -> Way:
    port = a_free_port()

    @asynccontextmanager
    async def processor(handle: Handle) -> AsyncIterator[None]:
        app = FastAPI()
        app.include_router(event_router(handle))
        async with serving(app, port):
            yield

    return Way(HttpEventSink(f"http://127.0.0.1:{port}/", timeout=patience), processor)


class Handed(MemoryManifest):
    """Gives each event to the test; fails while there is none to take it."""

    def __init__(self) -> None:
        super().__init__("edi")
        self.handle: Handle | None = None

    async def record(self, events: Sequence[CloudEvent], turn: object = None) -> list[PermanentError | None]:
        if self.handle is None:
            raise BackendUnavailable("no database")
        results = await asyncio.gather(*map(self.handle, events), return_exceptions=True)
        for one in results:
            if isinstance(one, BaseException) and not isinstance(one, PermanentError):
                raise one
        return [one if isinstance(one, PermanentError) else None for one in results]


class Current(Schema):
    """Of this version, always."""

    def __init__(self) -> None:
        """There is no database to look at."""

    async def is_current(self) -> bool:
        return True

    def look_again(self) -> None:
        """It will be the same."""


async def _direct_way(url: str, patience: float, stack: AsyncExitStack) -> Way:
    client = await stack.enter_async_context(connect(NatsSettings(url=url, subject_root="sinks")))
    manifest = Handed()
    recorder = BatchRecorder(manifest, asyncio.Event(), batch_size=500, queue_size=500, queue_bytes=10**6)
    await stack.enter_async_context(in_background(recorder.run()))

    @asynccontextmanager
    async def processor(handle: Handle) -> AsyncIterator[None]:
        manifest.handle = handle
        yield
        manifest.handle = None

    over_nats = NatsEventSink(client, EventSubjects("sinks", "edi"), timeout=patience)
    return Way(DirectSink(recorder, over_nats, Current(), timeout=patience), processor)


async def test_send_returns_when_the_event_is_recorded(way: Way) -> None:
    recorded: list[CloudEvent] = []
    record = asyncio.Event()

    async def handle(event: CloudEvent) -> None:
        await record.wait()
        recorded.append(event)

    event = an_event()
    async with way.processor(handle):
        sending = asyncio.create_task(way.sink.send(event))
        await asyncio.sleep(0.2)
        assert not sending.done()
        record.set()
        await sending
    assert recorded == [event]


REFUSALS = [
    Conflict("the series is südlich"),
    InvalidInput("no transfer syntax"),
    Superseded("a later one is there"),
    ObjectDeleted("the name of a deleted one"),
]


@pytest.mark.parametrize("error", REFUSALS)
async def test_what_the_processor_refuses_is_raised_at_once(way: Way, error: ImagingError) -> None:
    calls = 0

    async def handle(event: CloudEvent) -> None:
        nonlocal calls
        calls += 1
        raise error

    async with way.processor(handle):
        with pytest.raises(type(error), match=str(error)) as raised:
            await way.sink.send(an_event())
    assert calls == 1
    for kind in (Superseded, ObjectDeleted):
        assert isinstance(raised.value, kind) == isinstance(error, kind)


async def test_a_kind_of_invalid_input_is_invalid_input(way: Way) -> None:
    async def handle(event: CloudEvent) -> None:
        raise MissingIdentifier("no study")

    async with way.processor(handle):
        with pytest.raises(InvalidInput, match="no study"):
            await way.sink.send(an_event())


@pytest.mark.parametrize("error", [BackendUnavailable("database restarts"), RuntimeError("unforeseen")])
async def test_a_passing_trouble_is_not_noticed(way: Way, error: Exception) -> None:
    calls = 0

    async def handle(event: CloudEvent) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise error

    async with way.processor(handle):
        await way.sink.send(an_event())
    assert calls >= 3  # one that was answered late on a busy machine was handed in again


async def test_a_processor_that_restarts_is_waited_for(way: Way) -> None:
    recorded: list[str] = []

    async def handle(event: CloudEvent) -> None:
        recorded.append(event.id)

    event = an_event()
    sending = asyncio.create_task(way.sink.send(event))
    await asyncio.sleep(0.3)
    async with way.processor(handle):
        await sending
    assert recorded == [event.id]


@pytest.mark.parametrize("patience", [1], ids=["impatient"])
async def test_a_processor_that_stays_away_raises_a_retryable_error_in_time(way: Way) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(RetryableError):
            await way.sink.send(an_event())


async def test_many_at_once(way: Way) -> None:
    recorded: list[str] = []

    async def handle(event: CloudEvent) -> None:
        await asyncio.sleep(0.01)
        recorded.append(event.id)

    events = [an_event(number=number) for number in range(500)]
    async with way.processor(handle):
        await asyncio.gather(*map(way.sink.send, events))
    assert set(recorded) == {event.id for event in events}  # one that waited for long was handed in again


async def test_a_processor_that_stops_answers_what_it_has_begun(way: Way) -> None:
    begun = asyncio.Event()
    recorded: list[str] = []

    async def handle(event: CloudEvent) -> None:
        begun.set()
        await asyncio.sleep(0.3)
        recorded.append(event.id)

    async with way.processor(handle):
        sending = asyncio.create_task(way.sink.send(an_event()))
        await begun.wait()
    await sending
    assert len(recorded) == 1


async def test_several_processors_share_the_events(nats_server: Nats) -> None:
    recorded: list[set[str]] = [set(), set()]

    def handler_of(index: int) -> Handle:
        async def handle(event: CloudEvent) -> None:
            recorded[index].add(event.id)

        return handle

    async with AsyncExitStack() as stack:
        way = await _nats_way(nats_server.url, 60, stack)
        for index in range(2):
            await stack.enter_async_context(way.processor(handler_of(index)))
        events = [an_event(number=number) for number in range(200)]
        await asyncio.gather(*map(way.sink.send, events))
    assert recorded[0] | recorded[1] == {event.id for event in events}
    assert min(map(len, recorded)) > 20


async def test_an_event_too_large_for_the_server_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    noise = [uuid.uuid4().hex for _ in range(4_000)]
    with NatsProcess(tmp_path_factory.mktemp("nats"), max_payload=64 * 1024) as server:
        async with AsyncExitStack() as stack:
            way = await _nats_way(server.url, 3, stack)
            with pytest.raises(InvalidInput, match="max_payload"):
                await way.sink.send(an_event(noise=noise))
