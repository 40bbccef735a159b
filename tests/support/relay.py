"""Helpers of the relay's tests: calls, streams of blocks, a handler that remembers."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from imaging_services.adapters.nats.relay import NatsRelay, open_relay
from imaging_services.adapters.nats.relay_settings import RelaySettings
from imaging_services.adapters.nats.relay_urgent import is_emptied
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.domain.dicom.command_set import CommandField, CommandSet, request, store_request
from imaging_services.domain.dicom.dimse import AssociationRequest, DimseResponse, Negotiated, StoreAnswer
from imaging_services.domain.dicom.storage_scp import Context
from imaging_services.domain.relay.messages import AssociationNotice, Call, Origin, StoreMessage

CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
EXPLICIT = "1.2.840.10008.1.2.1"


def call(command: CommandSet | None = None, association: str | None = None) -> Call:
    """A call of a new association, a C-STORE of a CT unless another command is given."""
    command = command or store_request(CT, f"1.2.3.{uuid.uuid4().int % 10**20}")
    origin = Origin(association or uuid.uuid4().hex, "MOD ÄLITY", "PROXY")
    return Call(origin, command.sop_class_uid, EXPLICIT, command)


def find_call() -> Call:
    return call(request(CommandField.C_FIND_RQ, FIND, message_id=7, has_data_set=True))


def get_call(takes: Sequence[Context] = ((CT, EXPLICIT),)) -> Call:
    """A C-GET whose requestor takes instances in these contexts."""
    asked = call(request(CommandField.C_GET_RQ, GET, message_id=7, has_data_set=True))
    return replace(asked, takes=tuple(takes))


async def blocks(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@dataclass
class Remembering:
    """A relay handler that stores digests; ``answers`` decides on each try of an instance."""

    answers: Callable[[StoreMessage, int], StoreAnswer] = lambda message, tries: StoreAnswer(0)
    responses: int = 3
    delay: float = 0
    tries: dict[str, int] = field(default_factory=dict)
    stored: list[tuple[str, str]] = field(default_factory=list)
    messages: list[StoreMessage] = field(default_factory=list)
    notices: list[AssociationNotice] = field(default_factory=list)
    asked: list[tuple[Call, bytes | None]] = field(default_factory=list)
    produced: int = 0
    stopped: bool = False

    async def store(self, message, data) -> StoreAnswer:
        uid = message.call.command.sop_instance_uid
        self.tries[uid] = self.tries.get(uid, 0) + 1
        digest = hashlib.sha256()
        async for block in data():
            digest.update(block)
        await asyncio.sleep(self.delay)
        answer = self.answers(message, self.tries[uid])
        if answer.status == 0:
            self.stored.append((uid, digest.hexdigest()))
            self.messages.append(message)
        return answer

    async def serve(self, call, data, cancellation=None, requestor=None) -> AsyncIterator[DimseResponse]:
        self.asked.append((call, data))
        try:
            for number in range(self.responses):
                await asyncio.sleep(self.delay)
                self.produced += 1
                yield DimseResponse(call.command.response(0xFF00, has_data_set=True), b"match %d" % number)
            yield DimseResponse(call.command.response(0))
        finally:
            self.stopped = True

    async def negotiate(self, request: AssociationRequest) -> Negotiated:
        return Negotiated({item.context_id: item.transfer_syntaxes[-1] for item in request.contexts})

    async def noticed(self, notice: AssociationNotice) -> None:
        self.notices.append(notice)


def relay_settings(url: str, channel: str, root: str, reply_timeout: float = 10, **more) -> RelaySettings:
    nats = NatsSettings(url=url, subject_root=root, reply_timeout_seconds=reply_timeout)
    return RelaySettings(nats=nats, channel=channel, **more)


@asynccontextmanager
async def nats_relay(settings: RelaySettings) -> AsyncIterator[NatsRelay]:
    async with open_relay(settings) as relay:
        await until(lambda: relay.connected)
        yield relay


@asynccontextmanager
async def listening(relay, handler) -> AsyncIterator[None]:
    """The relay serves its channel during the block."""
    serving = asyncio.Event()
    task = asyncio.create_task(
        relay.listen(handler, serving) if isinstance(relay, NatsRelay) else relay.listen(handler)
    )
    await asyncio.sleep(0)  # the one in memory listens from its first step
    try:
        if isinstance(relay, NatsRelay):
            async with asyncio.timeout(60):
                await serving.wait()
        yield
    finally:
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError), results


async def received_once(relay: NatsRelay, settings: RelaySettings, *domains: str | None) -> None:
    """It has received before, so that the queues of urgent stores have consumers in these domains."""
    async with listening(relay, Remembering()), asyncio.timeout(60):
        for domain in domains or (None,):
            while not await is_emptied(relay.client().jetstream(domain=domain), settings.receives):
                await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)
