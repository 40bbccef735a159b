"""What a listener answers to peers that break the protocol; each time the next association is served."""

import asyncio
import errno
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from imaging_services.adapters.dimse.acceptor import Listener, listen
from imaging_services.adapters.dimse.associate import decode_accept, encode_request
from imaging_services.adapters.dimse.messages import encode_message, p_data
from imaging_services.adapters.dimse.pdu import RELEASE_RP, RELEASE_RQ
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.scu import association, echo
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.tls import TlsContext, client_context
from imaging_services.adapters.dimse.user_information import UserInformation
from imaging_services.domain.dicom.command_set import (
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    MESSAGE_ID,
    MESSAGE_ID_BEING_RESPONDED_TO,
    NO_DATA_SET,
    CommandField,
    CommandSet,
    request,
    store_request,
)
from imaging_services.domain.dicom.dimse import CALLED_AE_NOT_RECOGNIZED, VERIFICATION, ProposedContext
from imaging_services.domain.errors import BackendUnavailable, DataSetMismatch, OutOfResources, SettingsError
from support.dimse import CT, EXPLICIT, RawPeer, Recorder, eventually

LIMITS = AssociationLimits(max_pdu_length=16384, max_associations=2)
CONTEXTS = (ProposedContext(1, CT, (EXPLICIT,)), ProposedContext(3, VERIFICATION, (EXPLICIT,)))
ASSOCIATE = encode_request("SCU", "SCP", CONTEXTS, UserInformation(16384))
STORE = store_request(CT, "1.2.3")
TLS = Path(__file__).parents[2] / "data" / "tls"
A_ABORT, A_ASSOCIATE_AC, A_ASSOCIATE_RJ = 7, 2, 3


def data_pdu(context_id: int, control: int, data: bytes, lie: int = 0) -> bytes:
    return struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2 + lie, context_id, control) + data


def command_with(**changes: int) -> bytes:
    elements = {**STORE.elements, **{int(key[1:], 16): value for key, value in changes.items()}}
    return data_pdu(1, 3, CommandSet(elements).encode())


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


@pytest.fixture
async def listener(handler: Recorder) -> AsyncIterator[Listener]:
    listener = await listen(handler, "127.0.0.1", 0, LIMITS)
    yield listener
    await listener.close(0)


@asynccontextmanager
async def limited(handler: Recorder, **seconds: float) -> AsyncIterator[Listener]:
    """A listener with short time-outs, for the tests that wait for them to expire."""
    listener = await listen(handler, "127.0.0.1", 0, LIMITS.model_copy(update=seconds))
    yield listener
    await listener.close(0)


async def established(listener: Listener) -> RawPeer:
    peer = await RawPeer.connect(listener.port)
    await peer.send(ASSOCIATE)
    kind, body = await peer.receive()
    assert kind == A_ASSOCIATE_AC
    assert [context.result for context in decode_accept(body).contexts] == [0, 0]
    return peer


async def still_serves(listener: Listener) -> bool:
    return await echo(RemoteAE("127.0.0.1", listener.port), calling_ae_title="NEXT", called_ae_title="SCP") == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (data_pdu(5, 3, STORE.encode()), 6),
        (data_pdu(1, 3, STORE.encode(), lie=100), 6),
        (data_pdu(1, 3, STORE.encode(), lie=-3), 6),
        (data_pdu(1, 3, b"\xff" * 40), 6),
        (command_with(x0100=0x8001), 6),
        (data_pdu(1, 2, b"data"), 5),
        (data_pdu(1, 3, STORE.encode()) * 2, 5),
        (struct.pack(">BxI", 4, 1 << 30), 6),
        (struct.pack(">BxI", 4, 16384 + 4096) + bytes(30000), 6),
        (struct.pack(">BxI", 0x55, 4), 1),
        (ASSOCIATE, 2),
        (RELEASE_RP, 2),
        (struct.pack(">BxI", 5, 400), 6),
        (data_pdu(1, 3, STORE.encode()) + RELEASE_RQ, 2),
    ],
    ids=[
        "unknown context",
        "PDV longer than its PDU",
        "PDV shorter than its PDU",
        "command garbage",
        "response instead of request",
        "data set without command",
        "command instead of data set",
        "absurd PDU length",
        "PDU above what was announced",
        "unknown PDU type",
        "second association request",
        "release response",
        "release of a wrong length",
        "release within a message",
    ],
)
async def test_violation_is_aborted_with_its_reason(
    handler: Recorder, listener: Listener, data: bytes, reason: int
) -> None:
    with capture_logs() as logs:
        peer = await established(listener)
        await peer.send(data)
        assert await peer.receive() == (A_ABORT, bytes((0, 0, 2, reason)))
        await peer.close()
        await eventually(lambda: handler.ends == [False])
    assert [entry["reason"] for entry in logs if entry["event"] == "peer breaks the protocol"] == [reason]
    assert handler.stored == []
    assert await still_serves(listener)


@pytest.mark.parametrize(
    ("data", "reason", "why"),
    [
        (bytes.fromhex("160301020001000001fc0303"), 1, "TLS client hello"),
        (b"GET / HTTP/1.1\r\n\r\n", 1, "HTTP request"),
        (data_pdu(1, 3, STORE.encode()), 2, "P_DATA_TF"),
        (struct.pack(">BxI", 1, 1 << 24), 6, "A_ASSOCIATE_RQ of 16777216 bytes"),
        (struct.pack(">BxI", 1, 20) + bytes(20), 6, "too short"),
    ],
)
async def test_first_pdu_must_be_an_association_request(listener: Listener, data: bytes, reason: int, why: str) -> None:
    with capture_logs() as logs:
        peer = await RawPeer.connect(listener.port)
        await peer.send(data)
        assert await peer.receive() == (A_ABORT, bytes((0, 0, 2, reason)))
        await peer.close()
    assert any(why in entry.get("why", "") for entry in logs)
    assert await still_serves(listener)


async def test_silent_connection_is_closed_when_artim_expires(handler: Recorder) -> None:
    async with limited(handler, artim_timeout_seconds=0.4) as listener:
        peer = await RawPeer.connect(listener.port)
        await peer.send(ASSOCIATE[:30])
        assert await peer.at_end()
        await peer.close()


async def test_truncated_pdu_stores_nothing(handler: Recorder, listener: Listener) -> None:
    peer = await established(listener)
    await peer.send(data_pdu(1, 3, STORE.encode()) + data_pdu(1, 0, bytes(1000)) + data_pdu(1, 2, bytes(1000))[:500])
    await eventually(handler.begun.is_set)
    await peer.close()
    await eventually(lambda: handler.ends == [False])
    assert handler.stored == []
    assert isinstance(handler.failures[0], BackendUnavailable)
    assert await still_serves(listener)


async def test_message_that_does_not_go_on_is_aborted(handler: Recorder) -> None:
    async with limited(handler, dimse_timeout_seconds=0.4) as listener:
        peer = await established(listener)
        await peer.send(data_pdu(1, 3, STORE.encode()) + data_pdu(1, 0, bytes(1000)))
        assert await peer.receive() == (A_ABORT, bytes((0, 0, 2, 0)))
        await peer.close()
        await eventually(lambda: handler.ends == [False])
    assert isinstance(handler.failures[0], BackendUnavailable)


async def test_idle_association_is_aborted(handler: Recorder) -> None:
    async with limited(handler, idle_timeout_seconds=0.2) as listener:
        peer = await established(listener)
        assert await peer.receive() == (A_ABORT, bytes((0, 0, 2, 0)))
        await peer.close()
        await eventually(lambda: handler.ends == [False])


async def response(peer: RawPeer) -> CommandSet:
    kind, body = await peer.receive()
    assert kind == 4
    return CommandSet.decode(body[6:])


async def test_store_without_data_set_is_not_understood(handler: Recorder, listener: Listener) -> None:
    peer = await established(listener)
    await peer.send(command_with(x0800=NO_DATA_SET))
    answer = await response(peer)
    assert (answer.status, answer.text(0x0902)) == (0xC000, "C-STORE without a data set")
    await peer.send(RELEASE_RQ)
    assert await peer.receive() == (6, bytes(4))
    await peer.close()
    await eventually(lambda: handler.ends == [True])
    assert not handler.begun.is_set()


async def test_unknown_command_is_an_unrecognized_operation(listener: Listener) -> None:
    peer = await established(listener)
    unknown = CommandSet({COMMAND_FIELD: 0x0077, MESSAGE_ID: 9, COMMAND_DATA_SET_TYPE: NO_DATA_SET})
    await peer.send(encode_message(1, unknown, None, 16384))
    answer = await response(peer)
    assert (answer.command_field, answer.status, answer.number(MESSAGE_ID_BEING_RESPONDED_TO)) == (0x8077, 0x0211, 9)
    await peer.close()


@pytest.mark.parametrize(
    ("error", "status", "comment"),
    [
        (DataSetMismatch("UIDs differ \\ here"), 0xA900, "UIDs differ   here"),
        (OutOfResources("disk is full"), 0xA700, "disk is full"),
        (ZeroDivisionError("secret"), 0x0110, ""),
    ],
)
async def test_error_of_a_handler_becomes_its_status(
    handler: Recorder, listener: Listener, error: Exception, status: int, comment: str
) -> None:
    handler.error = error
    peer = await established(listener)
    with capture_logs() as logs:
        await peer.send(encode_message(1, STORE, bytes(100000), 16384))
        answer = await response(peer)
    assert (answer.status, answer.text(0x0902)) == (status, comment)
    assert [entry["log_level"] for entry in logs] == ["error" if isinstance(error, ZeroDivisionError) else "warning"]
    await peer.send(encode_message(3, request(CommandField.C_ECHO_RQ, VERIFICATION), None, 16384))
    assert (await response(peer)).status == status
    await peer.close()


async def test_early_answer_waits_for_the_rest_of_the_data_set(handler: Recorder, listener: Listener) -> None:
    handler.stop_after = 1
    peer = await established(listener)
    await peer.send(data_pdu(1, 3, STORE.encode()) + b"".join(p_data(1, 0, bytes(3 << 20), 16384)))
    assert (await response(peer)).status == 0xA700
    handler.stop_after = None
    await peer.send(encode_message(1, STORE, b"whole!", 16384))
    assert (await response(peer)).status == 0
    assert handler.stored == [("1.2.3", b"whole!")]
    await peer.close()


async def test_a_slow_handler_slows_the_sender(handler: Recorder) -> None:
    handler.hold = asyncio.Event()
    async with limited(handler, dimse_timeout_seconds=1.5) as listener:
        peer = await established(listener)
        sending = asyncio.ensure_future(peer.send(encode_message(1, STORE, bytes(64 << 20), 16384)))
        await eventually(handler.begun.is_set)
        await asyncio.sleep(2)  # longer than the time-out for the rest of a message: the silence is ours
        assert not sending.done()
        handler.hold.set()
        await sending
        assert (await response(peer)).status == 0
        assert len(handler.stored[0][1]) == 64 << 20
        await peer.close()


async def test_cancel_ends_a_find_with_fe00(handler: Recorder, listener: Listener) -> None:
    handler.endless = True
    peer = await established(listener)
    find = request(CommandField.C_FIND_RQ, CT, message_id=7, has_data_set=True)
    await peer.send(encode_message(1, find, b"\0\0", 16384))
    await peer.receive()
    cancel = {COMMAND_FIELD: CommandField.C_CANCEL_RQ, COMMAND_DATA_SET_TYPE: NO_DATA_SET}
    for message_id in (99, 7):  # another operation's id has no effect
        cancel[MESSAGE_ID_BEING_RESPONDED_TO] = message_id
        await peer.send(encode_message(1, CommandSet(dict(cancel)), None, 16384))
    statuses = []
    while not statuses or statuses[-1] == 0xFF00:
        _, body = await peer.receive()
        if body[5] & 1:
            statuses.append(CommandSet.decode(body[6 : 4 + int.from_bytes(body[:4], "big")]).status)
    assert statuses[-1] == 0xFE00
    assert handler.generators_closed == 1
    handler.endless = False
    await peer.send(encode_message(3, request(CommandField.C_ECHO_RQ, VERIFICATION), None, 16384))
    assert (await response(peer)).status == 0
    await peer.close()


async def test_abort_closes_a_running_find(handler: Recorder, listener: Listener) -> None:
    handler.endless = True
    peer = await established(listener)
    find = request(CommandField.C_FIND_RQ, CT, has_data_set=True)
    await peer.send(encode_message(1, find, b"\0\0", 16384))
    await eventually(handler.begun.is_set)
    await peer.send(struct.pack(">BxIBBBB", 7, 4, 0, 0, 0, 0))
    await eventually(lambda: handler.ends == [False])
    assert handler.generators_closed == 1
    await peer.close()


async def test_one_association_too_many_is_rejected_for_now(listener: Listener) -> None:
    peers = [await established(listener) for _ in range(2)]
    third = await RawPeer.connect(listener.port)
    await third.send(ASSOCIATE)
    assert await third.receive() == (A_ASSOCIATE_RJ, bytes((0, 2, 3, 2)))
    await third.close()
    await peers[0].close()
    await eventually(lambda: listener.associations == 1)
    assert await still_serves(listener)
    await peers[1].close()


async def test_rejection_of_the_service_is_sent(handler: Recorder) -> None:
    handler.accept = lambda _: CALLED_AE_NOT_RECOGNIZED
    async with limited(handler, artim_timeout_seconds=0.4) as listener:  # so long we wait for the peer to close
        peer = await RawPeer.connect(listener.port)
        await peer.send(ASSOCIATE)
        assert await peer.receive() == (A_ASSOCIATE_RJ, bytes((0, 1, 1, 7)))
        assert await peer.at_end()
        await peer.close()
    assert handler.ends == []


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [(b"\x00\x01\x00\x00SCP", b"\x00\x02\x00\x00SCP", (1, 2, 2)), (b"3.1.1.1", b"3.1.1.9", (1, 1, 2))],
    ids=["protocol version", "application context"],
)
async def test_other_versions_are_rejected(
    listener: Listener, old: bytes, new: bytes, answer: tuple[int, int, int]
) -> None:
    assert old in ASSOCIATE
    peer = await RawPeer.connect(listener.port)
    await peer.send(ASSOCIATE.replace(old, new, 1))
    assert await peer.receive() == (A_ASSOCIATE_RJ, bytes((0, *answer)))
    await peer.close()


async def test_close_lets_a_store_finish_and_then_aborts(handler: Recorder, listener: Listener) -> None:
    handler.hold = asyncio.Event()
    peer = await established(listener)
    await peer.send(encode_message(1, STORE, bytes(500000), 16384))
    await eventually(handler.begun.is_set)
    closing = asyncio.ensure_future(listener.close(3))
    await until_nobody_listens(listener.port)
    handler.hold.set()
    assert (await response(peer)).status == 0
    assert await peer.receive() == (A_ABORT, bytes(4))
    await closing
    assert handler.ends == [False]
    await peer.close()


async def until_nobody_listens(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED:
                    return
            await asyncio.sleep(0.01)


async def test_processes_may_share_a_port_on_request_only(handler: Recorder, listener: Listener) -> None:
    with pytest.raises(SettingsError, match="cannot listen"):
        await listen(handler, "127.0.0.1", listener.port)
    first = await listen(handler, "127.0.0.1", 0, reuse_port=True)
    second = await listen(handler, "127.0.0.1", first.port, reuse_port=True)
    assert await still_serves(second)
    await first.close(0)
    await second.close(0)


async def test_tls_on_both_sides(handler: Recorder) -> None:
    certificate, key = TLS / "certificate.pem", TLS / "key.pem"  # self-signed for 127.0.0.1
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(certificate, key)
    client.load_verify_locations(certificate)
    listener = await listen(handler, "127.0.0.1", 0, tls=TlsContext(lambda: server))
    peer = RemoteAE("127.0.0.1", listener.port, tls=TlsContext(lambda: client))
    async with association(peer, calling_ae_title="SCU", called_ae_title="SCP", contexts=CONTEXTS) as requestor:
        assert (await requestor.store(1, STORE, bytes(3000000))).status == 0
    assert handler.stored == [("1.2.3", bytes(3000000))]
    with pytest.raises(BackendUnavailable):
        await echo(RemoteAE("127.0.0.1", listener.port), calling_ae_title="PLAIN", called_ae_title="SCP")
    stranger = RemoteAE("127.0.0.1", listener.port, tls=client_context(None, None))
    with pytest.raises(BackendUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await echo(stranger, calling_ae_title="STRANGER", called_ae_title="SCP")
    await listener.close(1)
