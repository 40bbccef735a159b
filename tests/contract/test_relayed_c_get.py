"""C-GET over every relay: its sub-operations go back to the requestor at the near side."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from imaging_services.adapters.memory.relay import MemoryRelayBus
from imaging_services.domain.dicom.command_set import CommandSet, store_request
from imaging_services.domain.dicom.dimse import Cancellation, DimseResponse
from imaging_services.domain.dicom.storage_scp import Context, StorageScp
from imaging_services.domain.errors import BackendUnavailable, ImagingError, UnsupportedSopClass
from imaging_services.domain.relay.messages import Call
from support.relay import CT, EXPLICIT, Remembering, blocks, get_call, listening, nats_relay, relay_settings, until


@pytest.fixture(params=["memory", "nats"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Any, Any]]:
    if request.param == "memory":
        bus = MemoryRelayBus()
        yield bus.end("A"), bus.end("B")
        return
    url, root = request.getfixturevalue("nats_server").url, f"t{uuid.uuid4().hex}"
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(nats_relay(relay_settings(url, "A", root))),
            await stack.enter_async_context(nats_relay(relay_settings(url, "B", root))),
        )


@dataclass
class Taking:
    """A requestor that keeps what comes, and answers as ``status`` says."""

    status: Callable[[str], int] = lambda uid: 0x0000
    contexts: Sequence[Context] = ((CT, EXPLICIT),)
    taken: list[tuple[str, bytes]] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def store(
        self, sop_class_uid: str, transfer_syntax: str, command: CommandSet, data: AsyncIterator[bytes]
    ) -> CommandSet:
        assert (sop_class_uid, transfer_syntax) == (CT, EXPLICIT)
        content = b""
        async for block in data:
            content += block
            if self.gate is not None:
                await self.gate.wait()
        self.taken.append((command.sop_instance_uid, content))
        return command.response(self.status(command.sop_instance_uid))


@dataclass
class Giving(Remembering):
    """Sends the instances, then says how they were answered; a pending response goes ahead of each."""

    instances: Sequence[tuple[str, bytes]] = ()
    answers: list[int] = field(default_factory=list)
    errors: list[ImagingError] = field(default_factory=list)
    read: int = 0
    context: Context = (CT, EXPLICIT)

    async def serve(
        self,
        call: Call,
        data: bytes | None,
        cancellation: Cancellation | None = None,
        requestor: StorageScp | None = None,
    ) -> AsyncIterator[DimseResponse]:
        assert requestor is not None
        assert cancellation is not None
        cancellation.handle()
        try:
            for uid, content in self.instances:
                if cancellation.requested:
                    yield DimseResponse(call.command.response(0xFE00))
                    return
                yield DimseResponse(call.command.response(0xFF00))
                try:
                    command = store_request(self.context[0], uid)
                    response = await requestor.store(*self.context, command, self._blocks(content))
                    self.answers.append(response.status)
                except ImagingError as error:
                    self.errors.append(error)
                    break
            yield DimseResponse(call.command.response(0x0000))
        finally:
            self.stopped = True

    async def _blocks(self, content: bytes) -> AsyncIterator[bytes]:
        async for block in blocks(content, 300_000):
            self.read += len(block)
            yield block


async def responses_of(near: Any, requestor: Taking, cancellation: Cancellation | None = None) -> list[int]:
    asked = near.request(get_call(), b"identifier", cancellation, requestor)
    return [response.command.status async for response in asked]


async def test_instances_of_all_sizes_arrive_and_their_answers_go_back(ends: tuple[Any, Any]) -> None:
    near, far = ends
    sizes = (1, 256 * 1024, 256 * 1024 + 1, 0, 5 * 2**20 + 3, 40)
    giving = Giving(instances=[(f"1.2.{n}", os.urandom(size)) for n, size in enumerate(sizes)])
    taking = Taking(lambda uid: {"1.2.1": 0xB000, "1.2.4": 0xA700}.get(uid, 0))
    async with listening(far, giving):
        statuses = await responses_of(near, taking)
    assert statuses == [0xFF00] * len(sizes) + [0]
    assert taking.taken == list(giving.instances)
    assert giving.answers == [0, 0xB000, 0, 0, 0xA700, 0]


async def test_responses_may_wait_for_an_instance_to_end(ends: tuple[Any, Any]) -> None:
    """Both go over one association, where no message begins within another (PS3.8 annex E.2)."""
    near, far = ends

    class Telling(Giving):
        async def serve(self, call: Call, *asked: Any) -> AsyncIterator[DimseResponse]:
            requestor: StorageScp = asked[2]
            data = self._blocks(self.instances[0][1])
            storing = asyncio.create_task(requestor.store(CT, EXPLICIT, store_request(CT, "1.2.3"), data))
            while not (await asyncio.wait({storing}, timeout=0.01))[0]:
                yield DimseResponse(call.command.response(0xFF00))
            self.answers.append(storing.result().status)
            yield DimseResponse(call.command.response(0x0000))

    giving, taking = Telling(instances=[("1.2.3", os.urandom(4 * 2**20))]), Taking(gate=asyncio.Event())
    assert taking.gate is not None
    async with listening(far, giving):
        async for response in near.request(get_call(), b"identifier", None, taking):
            if response.command.status == 0xFF00:
                taking.gate.set()
                await until(lambda: len(taking.taken) == 1)
    assert (response.command.status, giving.answers) == (0, [0])


async def test_a_context_that_the_requestor_does_not_take_fails_at_the_far_side(ends: tuple[Any, Any]) -> None:
    near, far = ends
    giving, taking = Giving(instances=[("1.2.3", b"data")], context=(CT, "1.2.840.10008.1.2.5")), Taking()
    async with listening(far, giving):
        assert await responses_of(near, taking) == [0xFF00, 0]
    assert [type(error) for error in giving.errors] == [UnsupportedSopClass]
    assert (giving.read, taking.taken) == (0, [])


async def test_a_slow_requestor_slows_the_far_side_down(ends: tuple[Any, Any]) -> None:
    near, far = ends
    content = os.urandom(6 * 2**20)
    giving, taking = Giving(instances=[("1.2.3", content)]), Taking(gate=asyncio.Event())
    assert taking.gate is not None
    async with listening(far, giving):
        asked = asyncio.create_task(responses_of(near, taking))
        await until(lambda: giving.read > 0)
        await asyncio.sleep(0.3)
        assert giving.read <= 3 * 2**20
        taking.gate.set()
        assert await asked == [0xFF00, 0]
    assert taking.taken == [("1.2.3", content)]


async def test_a_cancellation_reaches_the_far_side_between_two_instances(ends: tuple[Any, Any]) -> None:
    near, far = ends
    giving = Giving(instances=[(f"1.2.{n}", b"data") for n in range(5000)])
    cancellation = Cancellation()

    def status(uid: str) -> int:
        if uid == "1.2.2":
            cancellation.request()
        return 0

    taking = Taking(status)
    async with listening(far, giving):
        statuses = await responses_of(near, taking, cancellation)
    assert statuses[-1] == 0xFE00
    assert 3 <= len(taking.taken) == len(giving.answers) < 5000


async def test_a_requestor_that_goes_ends_the_work_at_both_sides(ends: tuple[Any, Any]) -> None:
    near, far = ends

    class Gone(Taking):
        async def store(self, *asked: Any) -> CommandSet:
            async for _ in asked[3]:
                break
            raise BackendUnavailable("association lost")

    giving = Giving(instances=[("1.2.3", os.urandom(3 * 2**20)), ("1.2.4", b"data")])
    async with listening(far, giving):
        with pytest.raises(BackendUnavailable, match="association lost"):
            await responses_of(near, Gone())
        await until(lambda: giving.stopped)
    assert giving.answers == []


async def test_a_reader_that_is_cancelled_within_an_instance_stops_the_far_side(ends: tuple[Any, Any]) -> None:
    near, far = ends
    giving, taking = Giving(instances=[("1.2.3", os.urandom(6 * 2**20))]), Taking(gate=asyncio.Event())
    async with listening(far, giving):
        asked = asyncio.create_task(responses_of(near, taking))
        await until(lambda: giving.read > 0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until(lambda: giving.stopped)
    assert (taking.taken, giving.answers) == ([], [])


async def test_an_instance_that_breaks_off_is_raised_at_the_near_side(ends: tuple[Any, Any]) -> None:
    near, far = ends

    class Breaking(Giving):
        async def _blocks(self, content: bytes) -> AsyncIterator[bytes]:
            yield content
            raise BackendUnavailable("the storage space is away")

    giving, taking = Breaking(instances=[("1.2.3", os.urandom(2**20))]), Taking()
    async with listening(far, giving):
        with pytest.raises(BackendUnavailable):
            await responses_of(near, taking)
        await until(lambda: giving.stopped)
    assert [str(error) for error in giving.errors] == ["the storage space is away"]
    assert taking.taken == []
