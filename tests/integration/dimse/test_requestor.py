"""Our requestor and the association pool, against our acceptor and against peers that misbehave."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from imaging_services.adapters.dimse.acceptor import Listener, listen
from imaging_services.adapters.dimse.associate import decode_request, encode_accept
from imaging_services.adapters.dimse.contexts import Capabilities, choose_contexts
from imaging_services.adapters.dimse.messages import encode_message
from imaging_services.adapters.dimse.pdu import RELEASE_RP
from imaging_services.adapters.dimse.pool import AssociationPool
from imaging_services.adapters.dimse.requested import RequestedAssociation
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.user_information import UserInformation
from imaging_services.domain.dicom.command_set import (
    MESSAGE_ID_BEING_RESPONDED_TO,
    CommandField,
    CommandSet,
    request,
    store_request,
)
from imaging_services.domain.dicom.dimse import (
    AcceptedContext,
    DimseRequest,
    ProposedContext,
    Requestor,
    StoreAnswer,
    StoreHandler,
)
from imaging_services.domain.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    OutOfResources,
    Refused,
    UnsupportedSopClass,
)
from support.dimse import CT, EXPLICIT, IMPLICIT, JPEG, MR, Recorder, eventually

LIMITS = AssociationLimits()
IMPATIENT = AssociationLimits(artim_timeout_seconds=0.5, dimse_timeout_seconds=0.5)
CONTEXTS = (ProposedContext(1, CT, (EXPLICIT,)),)
STORE = store_request(CT, "1.2.3", message_id=4)
Serve = Callable[..., Awaitable[RemoteAE]]
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_pdu(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    header = await reader.readexactly(6)
    return header[0], await reader.readexactly(int.from_bytes(header[2:], "big"))


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_pdu: int = 0) -> None:
    _, body = await read_pdu(reader)
    writer.write(
        encode_accept(decode_request(body), {1: AcceptedContext(1, CT, EXPLICIT)}, {}, UserInformation(max_pdu))
    )


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server that follows a script with each connection, then closes it."""
    servers: list[asyncio.Server] = []

    async def start(script: Script, limits: AssociationLimits = LIMITS) -> RemoteAE:
        async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await script(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            finally:
                writer.close()

        servers.append(await asyncio.start_server(follow, "127.0.0.1", 0))
        return RemoteAE("127.0.0.1", servers[-1].sockets[0].getsockname()[1], limits)

    yield start
    for server in servers:
        server.close()


async def associate(peer: RemoteAE) -> Requestor:
    return await peer.associate(calling_ae_title="SCU", called_ae_title="SCP", contexts=CONTEXTS)


async def test_nobody_listens() -> None:
    with pytest.raises(BackendUnavailable, match="no connection"):
        await associate(RemoteAE("127.0.0.1", 1))


async def test_peer_that_says_nothing_is_too_late(serve: Serve) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    with pytest.raises(DeadlineExceeded, match="association answer"):
        await associate(await serve(script, IMPATIENT))


async def test_an_abort_that_fails_is_logged_and_hides_no_error(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(association: RequestedAssociation) -> None:
        association.connection.kill()
        raise RuntimeError("unforeseen")

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr(RequestedAssociation, "abort", fails)
    with capture_logs() as lines, pytest.raises(DeadlineExceeded):
        await associate(await serve(silent, IMPATIENT))
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["association could not be aborted"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack(">BxI4x", 6, 4),
        struct.pack(">BxI", 2, 3) + b"abc",
        struct.pack(">BxIBBBB", 7, 4, 0, 0, 2, 1),
    ],
    ids=["close", "http", "release", "short accept", "abort"],
)
async def test_other_answers_are_a_failure_of_the_peer(serve: Serve, answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_pdu(reader)
        writer.write(answer)

    with pytest.raises(BackendUnavailable, match="association answer"):
        await associate(await serve(script))


@pytest.mark.parametrize("max_pdu", [0, 200, 16384])
async def test_pdus_fit_what_the_peer_takes(serve: Serve, max_pdu: int) -> None:
    lengths: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer, max_pdu)
        control = 0
        while control != 2:
            _, body = await read_pdu(reader)
            lengths.append(len(body))
            control = body[5]
        writer.write(encode_message(1, STORE.response(0xB000), None, 16384))
        await reader.read()

    requestor = await associate(await serve(script))
    assert (await requestor.store(1, STORE, bytes(100001))).status == 0xB000
    await requestor.abort()
    assert max(lengths) <= (max_pdu or LIMITS.max_sent_pdu_length)
    assert sum(lengths[1:]) - 6 * len(lengths[1:]) == 100002  # even, by a NUL


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", DeadlineExceeded),
        (encode_message(1, CommandSet({**STORE.response(0).elements, MESSAGE_ID_BEING_RESPONDED_TO: 77}), None, 4096),
         BackendUnavailable),
        (encode_message(1, store_request(CT, "9.9"), b"data", 4096), BackendUnavailable),
        (encode_message(3, STORE.response(0), None, 4096), BackendUnavailable),
        (struct.pack(">BxIBBBB", 7, 4, 0, 0, 0, 0), BackendUnavailable),
        (struct.pack(">BxI4x", 5, 4), BackendUnavailable),
    ],
    ids=["silence", "other message id", "request", "unknown context", "abort", "release"],
)  # fmt: skip
async def test_bad_answer_to_a_store(serve: Serve, answer: bytes, error: type[Exception]) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await read_pdu(reader)
        writer.write(answer)
        await reader.read()

    limits = LIMITS if answer else AssociationLimits(dimse_timeout_seconds=0.5)
    requestor = await associate(await serve(script, limits))
    with pytest.raises(error):
        await requestor.store(1, STORE, b"data")
    with pytest.raises(BackendUnavailable):
        await requestor.store(1, STORE, b"data")


async def test_cancelled_store_is_aborted(serve: Serve) -> None:
    received: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        while True:
            received.append((await read_pdu(reader))[0])

    requestor = await associate(await serve(script))
    storing = asyncio.ensure_future(requestor.store(1, STORE, b"data"))
    await eventually(lambda: len(received) == 2)
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    await eventually(lambda: received[-1] == 7)


async def test_release_collision_is_resolved(serve: Serve) -> None:
    received: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        received.append((await read_pdu(reader))[0])
        writer.write(struct.pack(">BxI4x", 5, 4))
        received.append((await read_pdu(reader))[0])
        writer.write(struct.pack(">BxI4x", 6, 4))
        await reader.read()

    requestor = await associate(await serve(script))
    await requestor.release()
    assert received == [5, 6]


# the pool


@pytest.fixture
def handler() -> Recorder:
    capabilities = Capabilities(frozenset({CT, MR}), (EXPLICIT, IMPLICIT))
    return Recorder(accept=lambda request: choose_contexts(request.contexts, capabilities))


@pytest.fixture
async def listener(handler: Recorder) -> AsyncIterator[Listener]:
    listener = await listen(handler, "127.0.0.1", 0)
    yield listener
    await listener.close(1)


def pool_of(listener: Listener, **options: float) -> AssociationPool:
    return AssociationPool(RemoteAE("127.0.0.1", listener.port), "SCU", "SCP", **options)  # type: ignore[arg-type]


async def test_an_association_is_used_again(handler: Recorder, listener: Listener) -> None:
    pool = pool_of(listener)
    for number in range(5):
        answer = await pool.store(CT, f"1.{number}", EXPLICIT, b"data", extra_contexts=[(MR, IMPLICIT)])
        assert (answer.status, answer.sop_instance_uid) == (0, f"1.{number}")
    await pool.store(MR, "1.9", IMPLICIT, b"data")
    assert len(handler.requests) == 1
    await pool.close()
    await eventually(lambda: handler.ends == [True])


async def test_a_new_context_opens_a_new_association(handler: Recorder, listener: Listener) -> None:
    pool = pool_of(listener)
    await pool.store(CT, "1.1", EXPLICIT, b"data")
    await pool.store(MR, "1.2", EXPLICIT, b"data")
    await pool.store(CT, "1.3", EXPLICIT, b"data")
    assert [len(request.contexts) for request in handler.requests] == [1, 2]
    await pool.close()
    await eventually(lambda: handler.ends == [True, True])


async def test_what_the_peer_does_not_take(handler: Recorder, listener: Listener) -> None:
    pool = pool_of(listener)
    with pytest.raises(UnsupportedSopClass):
        await pool.store("1.2.840.10008.5.1.4.1.1.7", "1.1", EXPLICIT, b"data")
    with pytest.raises(Refused, match=r"4\.70"):
        await pool.store(CT, "1.1", JPEG, b"data", extra_contexts=[(CT, EXPLICIT)])
    await pool.close()
    assert handler.stored == []


async def test_stores_at_the_same_time_share_few_associations(handler: Recorder, listener: Listener) -> None:
    pool = pool_of(listener, max_associations=3)
    answers = await asyncio.gather(*(pool.store(CT, f"1.{n}", EXPLICIT, bytes(50000)) for n in range(20)))
    assert {answer.status for answer in answers} == {0}
    assert len({uid for uid, _ in handler.stored}) == 20
    assert len(handler.requests) <= 3
    await pool.close()


async def test_idle_associations_are_released(handler: Recorder, listener: Listener) -> None:
    pool = pool_of(listener, idle_seconds=0.05)
    await pool.store(CT, "1.1", EXPLICIT, b"data")
    await eventually(lambda: handler.ends == [True])
    await pool.close()


async def test_broken_association_is_replaced_once(handler: Recorder, listener: Listener) -> None:
    pool = pool_of(listener)
    await pool.store(CT, "1.1", EXPLICIT, b"data")
    port = listener.port
    await listener.close(0)
    again = await listen(handler, "127.0.0.1", port)
    opened: list[int] = []

    async def data() -> AsyncIterator[bytes]:
        opened.append(1)
        yield b"again!"

    assert (await pool.store(CT, "1.2", EXPLICIT, data)).status == 0
    assert handler.stored[-1] == ("1.2", b"again!")
    await again.close(0)
    with pytest.raises(BackendUnavailable):
        await pool.store(CT, "1.3", EXPLICIT, b"data")
    await pool.close()


async def test_pool_passes_transient_rejection_on(handler: Recorder) -> None:
    listener = await listen(handler, "127.0.0.1", 0, AssociationLimits(max_associations=1))
    holder = await RemoteAE("127.0.0.1", listener.port).associate(
        calling_ae_title="A", called_ae_title="B", contexts=CONTEXTS
    )
    pool = pool_of(listener)
    with pytest.raises(OutOfResources, match="local limit"):
        await pool.store(CT, "1.1", EXPLICIT, b"data")
    await holder.release()
    await eventually(lambda: listener.associations == 0)
    assert (await pool.store(CT, "1.1", EXPLICIT, b"data")).status == 0
    await pool.close()
    await listener.close(1)


async def test_an_event_report_that_nobody_asked_for_is_refused_and_the_operation_goes_on(serve: Serve) -> None:
    """The outcome of a storage commitment is then reported again, on an association of its own."""
    answers: list[CommandSet] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await read_pdu(reader)  # the command
        await read_pdu(reader)  # the data set
        event = request(CommandField.N_EVENT_REPORT_RQ, CT, message_id=9, has_data_set=True)
        writer.write(encode_message(1, event, bytes(40000), 16384))
        _, answer = await read_pdu(reader)
        answers.append(CommandSet.decode(answer[6:]))
        writer.write(encode_message(1, STORE.response(0), None, 16384))
        await read_pdu(reader)
        writer.write(RELEASE_RP)

    requestor = await (await serve(script)).associate(calling_ae_title="A", called_ae_title="B", contexts=CONTEXTS)
    assert (await requestor.store(1, STORE, b"data")).status == 0
    await requestor.release()
    [answer] = answers
    assert (answer.command_field, answer.status) == (0x8100, 0x0110)
    assert answer.number(MESSAGE_ID_BEING_RESPONDED_TO) == 9


async def taking(requestor: Requestor, takes: StoreHandler | None) -> list[int]:
    command = request(CommandField.C_GET_RQ, CT, message_id=7, has_data_set=True)
    return [one.command.status async for one in requestor.request(1, command, b"which", None, takes)]


async def test_a_store_without_a_get_is_no_request_for_us(serve: Serve) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await read_pdu(reader)
        writer.write(encode_message(1, STORE, b"data", 16384))
        await reader.read()

    with pytest.raises(BackendUnavailable, match="without a C-GET"):
        await taking(await associate(await serve(script)), None)


async def test_a_peer_that_stalls_within_an_instance_is_given_up(serve: Serve) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await read_pdu(reader)
        writer.write(encode_message(1, STORE, None, 16384))
        await reader.read()

    async def take(store: DimseRequest) -> StoreAnswer:
        assert store.data is not None
        async for _ in store.data:
            pass
        return StoreAnswer(0)

    with pytest.raises(BackendUnavailable, match="silent"):
        await taking(await associate(await serve(script, IMPATIENT)), take)


async def test_responses_may_be_late_while_instances_come(serve: Serve) -> None:
    """Pending responses are optional (PS3.7 section 9.1.3.1): each instance is a sign of life."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await read_pdu(reader)
        await read_pdu(reader)
        for number in range(6):
            await asyncio.sleep(0.4)
            writer.write(encode_message(1, store_request(CT, "1.2.3", message_id=number + 1), b"data", 16384))
            await read_pdu(reader)
        command = request(CommandField.C_GET_RQ, CT, message_id=7)
        writer.write(encode_message(1, command.response(0), None, 16384))
        await read_pdu(reader)
        writer.write(RELEASE_RP)

    async def take(store: DimseRequest) -> StoreAnswer:
        await asyncio.sleep(0.1)
        return StoreAnswer(0)

    requestor = await associate(await serve(script, AssociationLimits(dimse_timeout_seconds=2.5)))
    assert await taking(requestor, take) == [0]
    await requestor.release()
