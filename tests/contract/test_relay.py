"""What every relay does, the one over NATS and its twin in memory."""

import asyncio
import hashlib
import os
import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from imaging_services.adapters.memory.relay import MemoryRelayBus
from imaging_services.domain.dicom.command_set import ERROR_COMMENT, CommandField, request
from imaging_services.domain.dicom.dimse import (
    AssociationRequest,
    Cancellation,
    DimseResponse,
    Negotiated,
    ProposedContext,
    StoreAnswer,
)
from imaging_services.domain.errors import BackendUnavailable, Conflict, InvalidInput
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Origin
from support.relay import (
    CT,
    Remembering,
    blocks,
    call,
    find_call,
    listening,
    nats_relay,
    received_once,
    relay_settings,
    until,
)


@pytest.fixture(params=["memory", "nats"])
async def ends(request):
    if request.param == "memory":
        bus = MemoryRelayBus()
        yield bus.end("A"), bus.end("B")
        return
    url, root = request.getfixturevalue("nats_server").url, f"t{uuid.uuid4().hex}"
    async with AsyncExitStack() as stack:
        settings = relay_settings(url, "B", root, max_tries=3)
        near = await stack.enter_async_context(nats_relay(relay_settings(url, "A", root, max_tries=3)))
        far = await stack.enter_async_context(nats_relay(settings))
        if "urgent" in request.node.name:
            await received_once(far, settings)
        yield near, far


async def test_a_durable_store_waits_for_a_listener(ends):
    near, far = ends
    sent, data = call(), b"data set" * 1000
    await near.store_durably(sent, blocks(data))
    handler = Remembering()
    async with listening(far, handler):
        await until(lambda: handler.stored != [])
    assert handler.stored == [(sent.command.sop_instance_uid, hashlib.sha256(data).hexdigest())]
    message = handler.messages[0]
    assert message.call == sent
    assert (message.size, message.digest) == (len(data), hashlib.sha256(data).hexdigest())


async def test_an_instance_sent_again_arrives_again(ends):
    near, far = ends
    sent, handler = call(), Remembering()
    async with listening(far, handler):
        await near.store_durably(sent, blocks(b"same"))
        await near.store_durably(sent, blocks(b"same"))
        await until(lambda: len(handler.stored) == 2)


async def test_a_store_that_fails_for_now_is_tried_again(ends):
    near, far = ends
    handler = Remembering(answers=lambda message, tries: StoreAnswer(0xA700 if tries < 2 else 0))
    async with listening(far, handler):
        await near.store_durably(call(), blocks(b"data"))
        await until(lambda: handler.stored != [])
    assert list(handler.tries.values()) == [2]


async def test_confirmed_store_gives_the_far_status(ends):
    near, far = ends
    handler = Remembering(answers=lambda message, tries: StoreAnswer(0xA900, "not that one"))
    async with listening(far, handler):
        assert await near.store_confirmed(call(), blocks(b"data")) == StoreAnswer(0xA900, "not that one")
        handler.answers = lambda message, tries: StoreAnswer(0)
        assert await near.store_confirmed(call(), blocks(b"data")) == StoreAnswer(0)


async def test_confirmed_store_raises_the_far_error(ends):
    near, far = ends

    def refuse(message, tries):
        raise Conflict("series of another provider")

    async with listening(far, Remembering(answers=refuse)):
        with pytest.raises(Conflict, match="series of another provider"):
            await near.store_confirmed(call(), blocks(b"data"))


async def test_nobody_at_the_far_side(ends):
    near, _ = ends
    with pytest.raises(BackendUnavailable):
        await near.store_confirmed(call(), blocks(b"data"))
    with pytest.raises(BackendUnavailable):
        [response async for response in near.request(find_call(), b"identifier")]
    await near.announce(AssociationNotice(Origin("a", "b", "c"), AssociationState.OPEN, 60))


async def test_responses_come_in_order(ends):
    near, far = ends
    handler, sent = Remembering(responses=300), find_call()
    async with listening(far, handler):
        responses = [response async for response in near.request(sent, b"identifier")]
    assert [response.data for response in responses[:-1]] == [b"match %d" % number for number in range(300)]
    assert [response.command.status for response in responses] == [0xFF00] * 300 + [0]
    assert responses[-1].data is None
    assert responses[0].command.elements == sent.command.response(0xFF00, has_data_set=True).elements
    assert handler.asked == [(sent, b"identifier")]


async def test_a_failing_request_raises(ends):
    near, far = ends

    class Failing(Remembering):
        async def serve(self, call, data, cancellation=None, requestor=None):
            raise InvalidInput("no level")
            yield

    async with listening(far, Failing()):
        with pytest.raises(InvalidInput, match="no level"):
            [response async for response in near.request(find_call(), b"identifier")]


async def test_closing_the_responses_stops_the_far_side(ends):
    near, far = ends
    handler = Remembering(responses=100_000, delay=0.001)
    async with listening(far, handler):
        responses = near.request(find_call(), b"identifier")
        assert (await anext(responses)).data == b"match 0"
        await responses.aclose()
        await until(lambda: handler.stopped)
    assert handler.produced < 10_000


@pytest.mark.parametrize("handled", [False, True])
async def test_a_cancelled_request_gets_its_final_response(ends, handled):
    near, far = ends
    cancellation = Cancellation()

    class Moving(Remembering):
        async def serve(self, call, data, cancellation=None, requestor=None):
            if handled:
                cancellation.handle()
            try:
                while not (handled and cancellation.requested):
                    await asyncio.sleep(0.001)
                    yield DimseResponse(call.command.response(0xFF00))
                yield DimseResponse(call.command.response(0xFE00, error_comment="3 of 9 sent"))
            finally:
                self.stopped = True

    handler = Moving()
    async with listening(far, handler):
        statuses = []
        async for response in near.request(find_call(), b"identifier", cancellation):
            statuses.append(response.command.status)
            if len(statuses) == 3:
                cancellation.request()
        await until(lambda: handler.stopped)
    assert (statuses[:3], statuses[-1]) == ([0xFF00] * 3, 0xFE00)
    assert response.command.text(ERROR_COMMENT) == ("3 of 9 sent" if handled else "")


async def test_a_cancellation_that_comes_first_counts(ends):
    near, far = ends
    cancellation, handler = Cancellation(), Remembering(responses=100_000, delay=0.001)
    cancellation.request()
    async with listening(far, handler):
        statuses = [one.command.status async for one in near.request(find_call(), b"identifier", cancellation)]
    assert statuses[-1] == 0xFE00
    assert handler.produced < 10_000


async def test_large_data_sets_in_both_directions(ends):
    near, far = ends
    asked, answered = os.urandom(9 * 2**20), [os.urandom(size) for size in (3 * 2**20 + 1, 10, 2**20)]

    class Large(Remembering):
        async def serve(self, call, data, cancellation=None, requestor=None):
            self.asked.append((call, data))
            for content in answered:
                yield DimseResponse(call.command.response(0xFF00, has_data_set=True), content)
            yield DimseResponse(call.command.response(0))

    handler = Large()
    async with listening(far, handler):
        responses = [response async for response in near.request(find_call(), asked)]
    assert [response.data for response in responses] == [*answered, None]
    assert handler.asked[0][1] == asked


async def test_cancelling_the_reader_stops_the_far_side(ends):
    near, far = ends
    handler = Remembering(responses=100_000, delay=0.001)

    async def read():
        async for _ in near.request(find_call(), b"identifier"):
            pass

    async with listening(far, handler):
        task = asyncio.create_task(read())
        await until(lambda: handler.produced > 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: handler.stopped)


async def test_event_reports_over_an_association_at_the_near_side(ends):
    near, far = ends
    event = call(request(CommandField.N_EVENT_REPORT_RQ, "1.2.840.10008.1.20.1", has_data_set=True), "one")
    heard = []

    async def answer(asked, data):
        heard.append((asked, data))
        if len(heard) == 2:
            raise Conflict("not that one")
        return DimseResponse(asked.command.response(0x0110, has_data_set=True), b"reply")

    with pytest.raises(BackendUnavailable, match="not open"):
        await far.report(event, b"committed")
    async with near.hearing("one", answer):
        answered = await far.report(event, b"committed")
        assert (answered.command.status, answered.data) == (0x0110, b"reply")
        with pytest.raises(Conflict, match="not that one"):
            await far.report(event, b"again")
        with pytest.raises(BackendUnavailable, match="not open"):
            await far.report(call(event.command, "another"), b"committed")
    assert heard == [(event, b"committed"), (event, b"again")]
    with pytest.raises(BackendUnavailable, match="not open"):
        await far.report(event, b"committed")


async def test_negotiation_and_notices(ends):
    near, far = ends
    handler = Remembering()
    proposed = ProposedContext(3, CT, ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1"))
    asked = AssociationRequest("id", "MODALITY", "PROXY", (proposed,), 16384, "127.0.0.1:1")
    notice = AssociationNotice(Origin("a", "b c", "ü"), AssociationState.CLOSED, 60)
    async with listening(far, handler):
        assert await near.negotiate(asked) == Negotiated({3: "1.2.840.10008.1.2.1"})
        await near.announce(notice)
        await until(lambda: handler.notices == [notice])


async def test_the_end_of_an_association_comes_after_its_stores(ends):
    near, far = ends
    origin = Origin("a", "b", "c")
    notice = AssociationNotice(origin, AssociationState.CLOSED, 60)
    for _ in range(5):
        await near.store_durably(call(association="a"), blocks(b"data"))
    await near.finish(notice)
    gate, noticed_after = asyncio.Event(), []

    class Gated(Remembering):
        async def store(self, message, data):
            await gate.wait()
            return await super().store(message, data)

        async def noticed(self, notice):
            noticed_after.append((notice, len(self.stored)))

    handler = Gated(answers=lambda message, tries: StoreAnswer(0xA700 if tries < 2 else 0), delay=0.05)
    async with listening(far, handler):
        other = AssociationNotice(Origin("other", "b", "c"), AssociationState.CLOSED, 60)
        await near.finish(other)
        await until(lambda: (other, 0) in noticed_after)
        gate.set()
        await until(lambda: [one for one in noticed_after if one[0] == notice])
    assert [one for one in noticed_after if one[0].state is AssociationState.CLOSED] == [(other, 0), (notice, 5)]


async def test_urgent_stores_overtake_a_backlog_and_keep_their_order(ends):
    near, far = ends
    backlog, urgent = [call(association="long") for _ in range(400)], [call(association="stat") for _ in range(20)]
    for one in backlog:
        await near.store_durably(one, blocks(b"waits"))
    for one in urgent:
        await near.store_durably(one, blocks(b"at once"), urgent=True)
    handler = Remembering(delay=0.02)
    async with listening(far, handler):
        await until(lambda: len(handler.stored) == 420)
    uids = [uid for uid, _ in handler.stored]
    places = [uids.index(one.command.sop_instance_uid) for one in urgent]
    assert places == sorted(places)
    assert places[-1] < 300
    assert {one.call.origin.association_id for one in handler.messages if one.urgent} == {"stat"}


async def test_an_end_comes_after_the_urgent_stores_and_the_others(ends):
    near, far = ends
    for number in range(20):
        await near.store_durably(call(association="both"), blocks(b"data"), urgent=number % 2 == 0)
    notice = AssociationNotice(Origin("both", "b", "c"), AssociationState.CLOSED, 60)
    await near.finish(notice)
    ended_after = []

    class Slow(Remembering):
        async def store(self, message, data):
            await asyncio.sleep(0.3 if message.urgent else 0)
            return await super().store(message, data)

        async def noticed(self, told):
            if told.state is AssociationState.CLOSED:
                ended_after.append(len(self.stored))

    async with listening(far, Slow()):
        await until(lambda: ended_after != [])
    assert ended_after == [20]


async def test_a_store_says_when_it_was_accepted(ends):
    near, far = ends
    handler, before = Remembering(), datetime.now(UTC) - timedelta(seconds=1)
    await near.store_durably(call(), blocks(b"data"))
    after = datetime.now(UTC) + timedelta(seconds=1)
    async with listening(far, handler):
        await until(lambda: handler.stored != [])
        await near.store_confirmed(call(), blocks(b"data"))
    assert before < handler.messages[0].accepted_at < after
    assert handler.messages[1].accepted_at is None


async def test_both_directions_at_once(ends):
    near, far = ends
    at_near, at_far = Remembering(), Remembering()
    async with listening(far, at_far), listening(near, at_near):
        for _ in range(20):
            await asyncio.gather(near.store_durably(call(), blocks(b"a")), far.store_durably(call(), blocks(b"b")))
        await until(lambda: len(at_far.stored) == 20 and len(at_near.stored) == 20)


async def test_data_that_breaks_off_leaves_nothing(ends):
    near, far = ends

    async def broken():
        yield b"beginning"
        raise BackendUnavailable("association lost")

    handler = Remembering()
    async with listening(far, handler):
        with pytest.raises(BackendUnavailable, match="association lost"):
            await near.store_durably(call(), broken())
        await near.store_durably(call(), blocks(b"next"))
        await until(lambda: handler.stored != [])
    assert len(handler.stored) == 1
