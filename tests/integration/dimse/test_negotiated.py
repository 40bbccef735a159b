"""What peers may negotiate with a listener: operations at a time, roles, user identity, extended negotiation."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from imaging_services.adapters.dimse.acceptor import Listener, listen
from imaging_services.adapters.dimse.associate import decode_accept, encode_request
from imaging_services.adapters.dimse.messages import encode_message
from imaging_services.adapters.dimse.pdu import RELEASE_RP, RELEASE_RQ, PduType
from imaging_services.adapters.dimse.pool import AssociationPool
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.user_information import UserInformation, Window
from imaging_services.adapters.dimse.users import Users
from imaging_services.domain.dicom.command_set import (
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    MESSAGE_ID_BEING_RESPONDED_TO,
    NO_DATA_SET,
    CommandField,
    CommandSet,
    request,
    store_request,
)
from imaging_services.domain.dicom.dimse import (
    VERIFICATION,
    Association,
    AssociationRequest,
    DimseRequest,
    DimseResponse,
    Negotiated,
    ProposedContext,
    Role,
    Status,
    StoreAnswer,
    UserIdentity,
)
from imaging_services.domain.errors import SettingsError
from support.dcmtk import dcmtk, written
from support.dimse import CT, EXPLICIT, IMPLICIT, STUDY_ROOT_FIND, RawPeer, Recorder, eventually
from support.instances import instance

STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
CONTEXTS = (ProposedContext(1, CT, (EXPLICIT,)),)
USERS = "# who may\nanna:right horse:battery\nviewer:\n"


class Together(Recorder):
    """Answers a C-STORE once so many are under way."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.barrier = asyncio.Barrier(count)
        self.under_way = self.most = 0

    async def store(self, association: Association, request: DimseRequest) -> StoreAnswer:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.barrier.wait()
        self.under_way -= 1
        return await super().store(association, request)


async def pipelined(listener: Listener, window: Window | None, count: int) -> tuple[Window | None, set[int]]:
    """Send so many C-STOREs and the release without waiting; the window answered, and the messages answered."""
    peer = await RawPeer.connect(listener.port)
    try:
        await peer.send(encode_request("SCU", "SCP", CONTEXTS, UserInformation(16384, window=window)))
        _, body = await peer.receive()
        for number in range(1, count + 1):
            store = store_request(CT, f"1.2.{number}", message_id=number)
            await peer.send(encode_message(1, store, b"\0" * 9000, 16384))
        answered = set()
        for _ in range(count):
            _, pdu = await peer.receive()
            answered.add(CommandSet.decode(pdu[6:]).number(MESSAGE_ID_BEING_RESPONDED_TO))
        await peer.send(RELEASE_RQ)
        assert (await peer.receive())[0] == RELEASE_RP[0]
    finally:
        await peer.close()
    return decode_accept(body).user.window, answered


async def test_several_operations_at_a_time() -> None:
    handler = Together(3)
    listener = await listen(handler, "127.0.0.1", 0, AssociationLimits(max_operations=3))
    window, answered = await pipelined(listener, Window(7, 2), 6)
    assert (window, answered) == (Window(3, 1), {1, 2, 3, 4, 5, 6})
    assert (handler.most, len(handler.stored), handler.ends) == (3, 6, [True])
    await listener.close(5)


async def test_a_message_id_that_is_under_way_is_refused() -> None:
    handler = Recorder(endless=True)
    listener = await listen(handler, "127.0.0.1", 0, AssociationLimits(max_operations=3))
    peer = await RawPeer.connect(listener.port)
    contexts = (ProposedContext(1, STUDY_ROOT_FIND, (IMPLICIT,)),)
    await peer.send(encode_request("SCU", "SCP", contexts, UserInformation(16384, window=Window(3, 1))))
    await peer.receive()
    find = request(CommandField.C_FIND_RQ, STUDY_ROOT_FIND, message_id=7, has_data_set=True)
    identifier = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
    await peer.send(encode_message(1, find, identifier, 16384) * 2)
    assert await final_status(peer) == 0x0210
    cancel = CommandSet(
        {
            COMMAND_FIELD: CommandField.C_CANCEL_RQ,
            MESSAGE_ID_BEING_RESPONDED_TO: 7,
            COMMAND_DATA_SET_TYPE: NO_DATA_SET,
        }
    )
    await peer.send(encode_message(1, cancel, None, 16384))
    assert await final_status(peer) == 0xFE00
    await peer.close()
    await eventually(lambda: handler.ends == [False])
    assert (len(handler.served), handler.generators_closed) == (1, 1)
    await listener.close(5)


async def final_status(peer: RawPeer) -> int:
    """The status of the next response that is not pending."""
    for _ in range(1000):
        _, pdu = await peer.receive()
        if pdu[5] & 1 and (status := CommandSet.decode(pdu[6 : 4 + int.from_bytes(pdu[:4], "big")]).status) != 0xFF00:
            return status
    raise AssertionError("only pending responses")


async def test_one_operation_at_a_time_where_nothing_is_negotiated() -> None:
    handler = Together(1)
    listener = await listen(handler, "127.0.0.1", 0)
    window, answered = await pipelined(listener, None, 3)
    assert (window, answered, handler.most) == (None, {1, 2, 3}, 1)
    await listener.close(5)


async def test_a_listener_that_closes_waits_for_requests_but_not_for_idle_associations() -> None:
    handler = Together(2)
    listener = await listen(handler, "127.0.0.1", 0)
    idle, busy = await RawPeer.connect(listener.port), await RawPeer.connect(listener.port)
    for peer in (idle, busy):
        await peer.send(encode_request("SCU", "SCP", CONTEXTS, UserInformation(16384)))
        await peer.receive()
    store = store_request(CT, "1.2.1", message_id=1)
    await busy.send(encode_message(1, store, b"\0" * 9000, 16384))
    await eventually(lambda: handler.most == 1)
    closing = asyncio.create_task(listener.close(60, idle_seconds=0.2))
    assert (await idle.receive())[0] == PduType.A_ABORT
    assert handler.ends == [False]
    assert not closing.done()
    await handler.barrier.wait()
    assert (await busy.receive())[0] == PduType.P_DATA_TF
    assert (await busy.receive())[0] == PduType.A_ABORT
    await closing
    assert len(handler.stored) == 1
    for peer in (idle, busy):
        await peer.close()


async def test_operations_under_way_end_with_the_listener() -> None:
    handler = Together(5)
    listener = await listen(handler, "127.0.0.1", 0)
    sending = asyncio.create_task(pipelined(listener, Window(4, 1), 4))
    await eventually(lambda: handler.most == 4)
    await listener.close(0.01)
    assert handler.ends == [False]
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize(("granted", "most"), [(3, 3), (1, 1), (8, 5)])
async def test_our_requestor_uses_the_window_that_is_granted(granted: int, most: int) -> None:
    handler = Together(most)
    listener = await listen(handler, "127.0.0.1", 0, AssociationLimits(max_operations=granted))
    pool = AssociationPool(RemoteAE("127.0.0.1", listener.port, operations=5), "SCU", "SCP", max_associations=1)
    count = 3 * most
    answers = await asyncio.gather(*(pool.store(CT, f"1.2.{n}", EXPLICIT, bytes(9000)) for n in range(count)))
    assert [answer.status for answer in answers] == [0] * count
    assert (handler.most, len(handler.stored), len(handler.requests)) == (most, count, 1)
    await pool.close()
    await eventually(lambda: handler.ends == [True])
    await listener.close(5)


async def test_all_operations_of_a_lost_association_are_done_again() -> None:
    handler = Together(1)
    listener = await listen(handler, "127.0.0.1", 0)
    pool = AssociationPool(RemoteAE("127.0.0.1", listener.port, operations=4), "SCU", "SCP", max_associations=2)
    assert (await pool.store(CT, "1.1", EXPLICIT, b"data")).status == 0
    never = handler.barrier = asyncio.Barrier(9)
    storing = [asyncio.create_task(pool.store(CT, f"1.2.{n}", EXPLICIT, b"data")) for n in range(4)]
    await eventually(lambda: handler.under_way == 4)
    handler.barrier = asyncio.Barrier(1)
    [association] = listener._associations
    association.shut_down()
    assert [answer.status for answer in await asyncio.gather(*storing)] == [0] * 4
    assert sorted(uid for uid, _ in handler.stored) == ["1.1", *(f"1.2.{n}" for n in range(4))]
    assert len(handler.requests) <= 3
    await never.abort()
    await pool.close()
    await listener.close(5)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[tuple[Listener, Path]]:
    file = tmp_path / "users"
    file.write_text(USERS)
    listener = await listen(Recorder(), "127.0.0.1", 0, users=Users(file))
    yield listener, file
    await listener.close(5)


def identity(kind: int, name: bytes, passcode: bytes = b"", response: bool = False) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type, item.positive_response_requested = kind, response
    item.primary_field, item.secondary_field = name, passcode
    return item


async def pynetdicom(port: int, work: Callable[[Any], Any], **options: Any) -> Any:
    """Open an association with pynetdicom in a thread and do something with it."""

    def run() -> Any:
        ae = AE(ae_title="SCU")
        for uid in (VERIFICATION, STUDY_ROOT_GET, CT):
            ae.add_requested_context(uid, [EXPLICIT, IMPLICIT])
        association = ae.associate("127.0.0.1", port, **options)
        try:
            return work(association)
        finally:
            if association.is_established:
                association.release()

    return await asyncio.to_thread(run)


def response_of(association: Any) -> Any:
    assert association.is_established
    found = association.acceptor.user_identity
    return None if found is None else found.server_response


@pytest.mark.parametrize(
    ("item", "response"),
    [
        (identity(2, b"anna", b"right horse:battery", response=True), b""),
        (identity(2, b"anna", b"right horse:battery"), None),
        (identity(1, b"viewer"), None),
    ],
)
async def test_users_are_let_in(
    guarded: tuple[Listener, Path], item: UserIdentityNegotiation, response: bytes | None
) -> None:
    assert await pynetdicom(guarded[0].port, response_of, ext_neg=[item]) == response


async def rejection(port: int, user: UserIdentity | None) -> tuple[int, ...]:
    """Result, source and reason of the A-ASSOCIATE-RJ; empty for another answer."""
    peer = await RawPeer.connect(port)
    await peer.send(encode_request("SCU", "SCP", CONTEXTS, UserInformation(16384, user_identity=user)))
    kind, body = await peer.receive()
    await peer.close()
    return tuple(body[1:]) if kind == PduType.A_ASSOCIATE_RJ else ()


@pytest.mark.parametrize(
    "user",
    [
        UserIdentity(1, False, b"anna"),
        UserIdentity(2, True, b"anna", b"wrong"),
        UserIdentity(2, True, b"viewer", b"wrong"),
        UserIdentity(2, True, b"nobody", b"right horse:battery"),
        UserIdentity(3, True, b"ticket"),
        None,
    ],
)
async def test_others_are_rejected_by_the_acse(guarded: tuple[Listener, Path], user: UserIdentity | None) -> None:
    assert await rejection(guarded[0].port, user) == (1, 2, 1)


async def test_dcmtk_identifies_itself(guarded: tuple[Listener, Path], tmp_path: Path) -> None:
    file = written(tmp_path / "one.dcm", instance())
    where = ("127.0.0.1", str(guarded[0].port), str(file))
    code, output = await dcmtk("storescu", "-usr", "anna", "-pwd", "right horse:battery", "-rsp", *where, title="SCP")
    assert (code, output) == (0, "")
    code, output = await dcmtk("storescu", "-usr", "anna", "-pwd", "wrong", *where, title="SCP")
    assert code != 0
    assert "Reject" in output


async def test_users_are_read_again_and_a_broken_file_changes_nothing(guarded: tuple[Listener, Path]) -> None:
    listener, file = guarded
    new = UserIdentity(2, False, b"new", b"one")
    assert await rejection(listener.port, new) == (1, 2, 1)
    file.write_text(USERS + "new:one\n")
    assert await rejection(listener.port, new) == ()
    file.write_text("no colon\n")
    assert await rejection(listener.port, new) == ()


@pytest.mark.parametrize("content", [None, "", "# nobody\n", "anna\n", "anna:a\nanna:b\n", ":secret\n"])
def test_wrong_users_stop_the_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "users"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match="DIMSE_USERS_FILE=") as raised:
        Users(file)
    assert "secret" not in str(raised.value)


class Sender(Recorder):
    """Answers a C-GET with one instance, sent over the same association."""

    async def serve(self, association: Association, request: DimseRequest) -> AsyncIterator[DimseResponse]:
        assert association.sub_operations is not None
        context_id = next(one.context_id for one in association.contexts.values() if one.abstract_syntax == CT)
        response = await association.sub_operations.store(context_id, store_request(CT, "1.2.3"), data_set())
        yield DimseResponse(request.command.response(response.status))


def data_set() -> bytes:
    return b"\x08\x00\x18\x00UI\x06\x001.2.3\0"


def accept_roles(request: AssociationRequest) -> Negotiated:
    contexts = {context.context_id: context.transfer_syntaxes[0] for context in request.contexts}
    return Negotiated(contexts, roles={CT: Role(scu=True, scp=True)})


async def test_c_get_with_pynetdicom_as_storage_scp() -> None:
    listener = await listen(Sender(accept=accept_roles), "127.0.0.1", 0)
    received = []

    def stored(event: Any) -> int:
        received.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    def retrieve(association: Any) -> list[int]:
        wanted = Dataset()
        wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", "1.2"
        return [status.Status for status, _ in association.send_c_get(wanted, STUDY_ROOT_GET)]

    statuses = await pynetdicom(
        listener.port, retrieve, ext_neg=[build_role(CT, scp_role=True)], evt_handlers=[(evt.EVT_C_STORE, stored)]
    )
    assert (statuses, received) == ([Status.SUCCESS], ["1.2.3"])
    await listener.close(5)


async def test_our_requestor_learns_what_was_accepted() -> None:
    handler = Recorder(accept=lambda _: Negotiated({1: EXPLICIT}, {}, {CT: Role(scu=False, scp=True)}, {CT: b"\1"}))
    listener = await listen(handler, "127.0.0.1", 0)
    requestor = await RemoteAE("127.0.0.1", listener.port).associate(
        calling_ae_title="SCU",
        called_ae_title="SCP",
        contexts=CONTEXTS,
        roles={CT: Role(scu=True, scp=True)},
        extended={CT: b"\1\1", STUDY_ROOT_FIND: b"\1"},
    )
    assert (requestor.roles, requestor.extended) == ({CT: Role(scu=False, scp=True)}, {CT: b"\1"})
    assert handler.requests[0].extended == {CT: b"\1\1", STUDY_ROOT_FIND: b"\1"}
    await requestor.release()
    await listener.close(5)
