"""What every ``DicomPeer`` does, over real sockets and within the process."""

import contextlib
from collections.abc import AsyncIterator

import pytest

from imaging_services.adapters.dimse.acceptor import listen
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.memory.dicom_peer import MemoryPeer
from imaging_services.domain.dicom.command_set import ERROR_COMMENT, CommandField, request, store_request
from imaging_services.domain.dicom.dimse import (
    CALLED_AE_NOT_RECOGNIZED,
    TEMPORARY_CONGESTION,
    VERIFICATION,
    Association,
    DicomPeer,
    DimseRequest,
    DimseResponse,
    Negotiated,
    ProposedContext,
    Requestor,
    Role,
    Status,
    StoreAnswer,
)
from imaging_services.domain.errors import (
    BackendUnavailable,
    Conflict,
    InvalidInput,
    OutOfResources,
    Refused,
)
from support.dimse import CT, EXPLICIT, MR, STUDY_ROOT_FIND, Recorder, eventually

CONTEXTS = (
    ProposedContext(1, CT, (EXPLICIT,)),
    ProposedContext(3, MR, (EXPLICIT,)),
    ProposedContext(5, STUDY_ROOT_FIND, (EXPLICIT,)),
    ProposedContext(7, VERIFICATION, (EXPLICIT,)),
)
GET = request(CommandField.C_GET_RQ, "1.2.840.10008.5.1.4.1.2.2.3", message_id=7, has_data_set=True)
FIND = request(CommandField.C_FIND_RQ, STUDY_ROOT_FIND, message_id=3, has_data_set=True)


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


@pytest.fixture(params=["sockets", "memory"])
async def peer(request: pytest.FixtureRequest, handler: Recorder) -> AsyncIterator[DicomPeer]:
    if request.param == "memory":
        yield MemoryPeer(handler)
        return
    listener = await listen(handler, "127.0.0.1", 0)
    yield RemoteAE("127.0.0.1", listener.port)
    await listener.close(1)


async def associate(peer: DicomPeer) -> Requestor:
    return await peer.associate(calling_ae_title="SCU", called_ae_title="SCP", contexts=CONTEXTS)


async def blocks(*sizes: int) -> AsyncIterator[bytes]:
    for number, size in enumerate(sizes):
        yield bytes([number]) * size


async def test_association_says_who_and_what(peer: DicomPeer, handler: Recorder) -> None:
    handler.accept = lambda _: Negotiated({1: EXPLICIT, 7: EXPLICIT})
    requestor = await associate(peer)
    assert {key: value.abstract_syntax for key, value in requestor.contexts.items()} == {1: CT, 7: VERIFICATION}
    await requestor.release()
    await eventually(lambda: handler.ends == [True])
    [asked] = handler.requests
    assert (asked.calling_ae_title, asked.called_ae_title, asked.contexts) == ("SCU", "SCP", CONTEXTS)


async def test_rejections_are_permanent_or_transient(peer: DicomPeer, handler: Recorder) -> None:
    handler.accept = lambda _: CALLED_AE_NOT_RECOGNIZED
    with pytest.raises(Refused, match="called AE title not recognized"):
        await associate(peer)
    handler.accept = lambda _: TEMPORARY_CONGESTION
    with pytest.raises(OutOfResources, match="temporary congestion"):
        await associate(peer)
    assert handler.ends == []


async def test_bytes_and_blocks_arrive_whole(peer: DicomPeer, handler: Recorder) -> None:
    requestor = await associate(peer)
    whole = bytes(range(256)) * 4096
    sizes = (1, 131066, 131067, 0, 400000, 6)
    assert (await requestor.store(1, store_request(CT, "1.1"), whole)).status == 0
    assert (await requestor.store(3, store_request(MR, "1.2", message_id=2), blocks(*sizes))).status == 0
    assert (await requestor.store(3, store_request(MR, "1.3", message_id=3), blocks(4))).status == 0
    await requestor.release()
    assert handler.stored == [
        ("1.1", whole),
        ("1.2", b"".join([block async for block in blocks(*sizes)])),
        ("1.3", bytes(4)),
    ]


async def test_error_of_the_handler_is_a_status(peer: DicomPeer, handler: Recorder) -> None:
    handler.error = Conflict("series of another provider")
    requestor = await associate(peer)
    answer = await requestor.store(1, store_request(CT, "1.1"), bytes(300000))
    assert (answer.status, answer.text(0x0902)) == (0x0110, "series of another provider")
    responses = [r async for r in requestor.request(7, request(CommandField.C_ECHO_RQ, VERIFICATION))]
    assert [r.command.status for r in responses] == [0x0110]
    await requestor.release()


async def test_find_yields_identifiers_and_the_final_response(peer: DicomPeer, handler: Recorder) -> None:
    handler.matches = [b"first ", bytes(200000)]
    requestor = await associate(peer)
    responses = [response async for response in requestor.request(5, FIND, b"query ")]
    assert [(r.command.status, r.data) for r in responses] == [
        (0xFF00, b"first "),
        (0xFF00, bytes(200000)),
        (0x0000, None),
    ]
    await requestor.release()


async def test_find_left_early_closes_the_handlers_iterator(peer: DicomPeer, handler: Recorder) -> None:
    handler.endless = True
    requestor = await associate(peer)
    async with contextlib.aclosing(requestor.request(5, FIND, b"query ")) as responses:  # type: ignore[type-var]
        async for _ in responses:
            break
    assert handler.generators_closed == 1
    assert (await requestor.store(1, store_request(CT, "1.1"), b"more")).status == 0
    await requestor.release()
    await eventually(lambda: handler.ends == [True])


async def test_failing_source_aborts_and_stores_nothing(peer: DicomPeer, handler: Recorder) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield bytes(300000)
        raise Conflict("source failed")

    requestor = await associate(peer)
    with pytest.raises(Conflict, match="source failed"):
        await requestor.store(1, store_request(CT, "1.1"), failing())
    await eventually(lambda: handler.ends == [False])
    assert handler.stored == []
    assert isinstance(handler.failures[0], BackendUnavailable)
    with pytest.raises(BackendUnavailable):
        await requestor.store(1, store_request(CT, "1.1"), b"again")


async def test_context_that_was_not_accepted(peer: DicomPeer, handler: Recorder) -> None:
    handler.accept = lambda _: Negotiated({1: EXPLICIT})
    requestor = await associate(peer)
    with pytest.raises(InvalidInput, match="context 3"):
        await requestor.store(3, store_request(MR, "1.1"), b"data")
    await requestor.abort()
    await eventually(lambda: handler.ends == [False])
    await requestor.abort()


class Giving(Recorder):
    """Sends three instances for a C-GET, and keeps how they were answered."""

    async def serve(self, association: Association, asked: DimseRequest) -> AsyncIterator[DimseResponse]:
        assert asked.data is not None
        async for _ in asked.data:
            pass
        assert association.sub_operations is not None
        assert association.roles == {CT: Role(scu=False, scp=True)}
        for number, data in enumerate((b"smalls", blocks(1, 300000, 131067), b"refusing")):
            response = await association.sub_operations.store(1, store_request(CT, f"1.{number}"), data)
            self.served.append(asked)
            yield DimseResponse(asked.command.response(Status.PENDING, error_comment=f"{response.status:04X}"))
        yield DimseResponse(asked.command.response(Status.SUCCESS))


async def test_instances_of_a_get_are_taken_and_answered(peer: DicomPeer, handler: Recorder) -> None:
    giving = Giving(accept=lambda request: Negotiated({1: EXPLICIT, 3: EXPLICIT}, roles=request.roles))
    handler.accept = giving.accept
    handler.serve = giving.serve  # type: ignore[method-assign]
    taken: list[tuple[str, str, int]] = []

    async def take(store: DimseRequest) -> StoreAnswer:
        assert store.data is not None
        size = sum([len(block) async for block in store.data])
        taken.append((store.command.sop_instance_uid, store.context.transfer_syntax, size))
        if store.command.sop_instance_uid == "1.2":
            raise Conflict("not that one")
        return StoreAnswer(Status.SUB_OPERATIONS_WARNING if size == 6 else Status.SUCCESS)

    requestor = await peer.associate(
        calling_ae_title="SCU",
        called_ae_title="SCP",
        contexts=(ProposedContext(1, CT, (EXPLICIT,)), ProposedContext(3, GET.sop_class_uid, (EXPLICIT,))),
        roles={CT: Role(scu=False, scp=True)},
    )
    responses = [one.command async for one in requestor.request(3, GET, b"which", None, take)]
    assert taken == [("1.0", EXPLICIT, 6), ("1.1", EXPLICIT, 431068), ("1.2", EXPLICIT, 8)]
    assert [one.text(ERROR_COMMENT) for one in responses[:-1]] == ["B000", "0000", "0110"]
    assert responses[-1].status == Status.SUCCESS
    await requestor.release()
    await eventually(lambda: handler.ends == [True])
