"""Requests from the acceptor to the requestor: what the peer's answers, its silence and its going come to."""

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from imaging_services.adapters.dimse.acceptor import Listener, listen
from imaging_services.adapters.dimse.associate import encode_request
from imaging_services.adapters.dimse.messages import encode_message
from imaging_services.adapters.dimse.pdu import RELEASE_RQ
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.user_information import UserInformation
from imaging_services.domain.dicom.command_set import (
    ERROR_COMMENT,
    ERROR_ID,
    MESSAGE_ID,
    MESSAGE_ID_BEING_RESPONDED_TO,
    OFFENDING_ELEMENT,
    STATUS,
    CommandField,
    CommandSet,
    request,
    store_request,
)
from imaging_services.domain.dicom.dimse import Association, DimseRequest, DimseResponse, ProposedContext, StoreAnswer
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, InvalidInput
from support.dimse import CT, EXPLICIT, RawPeer, Recorder, eventually

GET = "1.2.840.10008.5.1.4.1.2.2.3"
CONTEXTS = (ProposedContext(1, GET, (EXPLICIT,)), ProposedContext(3, CT, (EXPLICIT,)))
DATA = bytes(range(256)) * 400
A_ABORT, A_ASSOCIATE_AC, P_DATA = 7, 2, 4


@dataclass
class Giving(Recorder):
    """Answers a C-GET with one sub-operation in context ``context_id``; keeps how it ended."""

    context_id: int = 3
    breaks: bool = False
    answers: list[CommandSet] = field(default_factory=list)

    async def serve(self, association: Association, asked: DimseRequest) -> AsyncIterator[DimseResponse]:
        requests = association.sub_operations
        assert requests is not None
        try:
            self.answers.append(await requests.store(self.context_id, store_request(CT, "1.2.3"), self._data()))
        except Exception as error:
            self.failures.append(error)
            raise
        yield DimseResponse(asked.command.response(0x0000))

    async def _data(self) -> AsyncIterator[bytes]:
        yield DATA[:50_000]
        if self.breaks:
            raise BackendUnavailable("the storage space is away")
        yield DATA[50_000:]


@pytest.fixture
def handler() -> Giving:
    return Giving()


@pytest.fixture
async def listener(handler: Giving) -> AsyncIterator[Listener]:
    limits = AssociationLimits(max_pdu_length=16384, dimse_timeout_seconds=2)
    listener = await listen(handler, "127.0.0.1", 0, limits)
    yield listener
    await listener.close(0)


async def asking(listener: Listener) -> RawPeer:
    """A peer that has sent its C-GET."""
    peer = await RawPeer.connect(listener.port)
    await peer.send(encode_request("SCU", "SCP", CONTEXTS, UserInformation(16384)))
    assert (await peer.receive())[0] == A_ASSOCIATE_AC
    command = request(CommandField.C_GET_RQ, GET, message_id=7, has_data_set=True)
    await peer.send(encode_message(1, command, b"\x08\x00\x52\x00CS\x06\x00STUDY ", 16384))
    return peer


async def message(peer: RawPeer) -> tuple[int, CommandSet, bytes]:
    """The next message: its context, command set and data set."""
    command, data, ended, context_id = b"", b"", False, 0
    while not ended:
        kind, body = await peer.receive()
        assert kind == P_DATA, kind
        while body:
            length, context_id, control = struct.unpack_from(">IBB", body)
            piece, body = body[6 : 4 + length], body[4 + length :]
            if control & 1:
                command += piece
                ended = bool(control & 2) and not CommandSet.decode(command).has_data_set
            else:
                data += piece
                ended = bool(control & 2)
    return context_id, CommandSet.decode(command), data


async def test_a_store_goes_back_and_its_answer_comes(handler: Giving, listener: Listener) -> None:
    peer = await asking(listener)
    context_id, store, data = await message(peer)
    assert (context_id, store.command_field, store.sop_instance_uid) == (3, CommandField.C_STORE_RQ, "1.2.3")
    assert data == DATA
    await peer.send(encode_message(3, store.response(0xB000), None, 16384))
    context_id, final, _ = await message(peer)
    assert (context_id, final.status, final.number(MESSAGE_ID_BEING_RESPONDED_TO)) == (1, 0x0000, 7)
    assert [answer.status for answer in handler.answers] == [0xB000]
    await peer.close()


async def test_all_that_a_requestor_answers_goes_back(handler: Giving, listener: Listener) -> None:
    async def take(store: DimseRequest) -> StoreAnswer:
        return StoreAnswer(0xC123, "not\\so", {OFFENDING_ELEMENT: 0x00100020, ERROR_ID: 77})

    requestor = await RemoteAE("127.0.0.1", listener.port).associate(
        calling_ae_title="SCU", called_ae_title="SCP", contexts=CONTEXTS
    )
    command = request(CommandField.C_GET_RQ, GET, message_id=7, has_data_set=True)
    assert [one.command.status async for one in requestor.request(1, command, b"which", None, take)] == [0]
    await requestor.release()
    told = {STATUS: 0xC123, ERROR_COMMENT: "not so", OFFENDING_ELEMENT: 0x00100020, ERROR_ID: 77}
    assert told.items() <= handler.answers[0].elements.items()


async def test_an_answer_to_another_request_aborts(handler: Giving, listener: Listener) -> None:
    peer = await asking(listener)
    _, store, _ = await message(peer)
    store.elements[MESSAGE_ID] = store.message_id + 1
    await peer.send(encode_message(3, store.response(0x0000), None, 16384))
    assert (await peer.receive())[0] == A_ABORT
    await eventually(lambda: len(handler.failures) == 1)
    assert isinstance(handler.failures[0], BackendUnavailable)
    await peer.close()


async def test_silence_aborts(handler: Giving, listener: Listener) -> None:
    peer = await asking(listener)
    await message(peer)
    assert (await peer.receive())[0] == A_ABORT
    await eventually(lambda: len(handler.failures) == 1)
    assert isinstance(handler.failures[0], DeadlineExceeded)
    await peer.close()


async def test_a_data_set_that_breaks_off_aborts(handler: Giving, listener: Listener) -> None:
    handler.breaks = True
    peer = await asking(listener)
    kinds = [(await peer.receive())[0]]
    while kinds[-1] != A_ABORT:
        kinds.append((await peer.receive())[0])
    await eventually(lambda: len(handler.failures) == 1)
    assert str(handler.failures[0]) == "the storage space is away"
    await peer.close()


async def test_a_context_that_was_not_accepted_is_refused_here(handler: Giving, listener: Listener) -> None:
    handler.context_id = 5
    peer = await asking(listener)
    _, final, _ = await message(peer)
    assert final.status == 0xC000
    assert isinstance(handler.failures[0], InvalidInput)
    await peer.close()


async def test_a_peer_that_releases_owes_no_answer(handler: Giving, listener: Listener) -> None:
    peer = await asking(listener)
    await message(peer)
    await peer.send(RELEASE_RQ)
    await eventually(lambda: len(handler.failures) == 1)
    assert isinstance(handler.failures[0], BackendUnavailable)
    await peer.close()


async def test_a_peer_that_goes_ends_the_operation(handler: Giving, listener: Listener) -> None:
    peer = await asking(listener)
    await message(peer)
    await peer.close()
    await eventually(lambda: handler.ends == [False])
    assert handler.answers == []
