"""A C-CANCEL that comes in the same read as its request."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from imaging_services.adapters.dimse.acceptor import listen
from imaging_services.adapters.dimse.associate import encode_request
from imaging_services.adapters.dimse.messages import encode_message
from imaging_services.adapters.dimse.user_information import UserInformation, Window
from imaging_services.domain.dicom.command_set import (
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    ERROR_COMMENT,
    MESSAGE_ID_BEING_RESPONDED_TO,
    NO_DATA_SET,
    CommandField,
    CommandSet,
    request,
)
from imaging_services.domain.dicom.dimse import Association, DimseRequest, DimseResponse, ProposedContext
from support.dimse import EXPLICIT, STUDY_ROOT_FIND, RawPeer, Recorder

FIND = request(CommandField.C_FIND_RQ, STUDY_ROOT_FIND, message_id=7, has_data_set=True)
CANCEL = CommandSet(
    {
        COMMAND_FIELD: CommandField.C_CANCEL_RQ,
        COMMAND_DATA_SET_TYPE: NO_DATA_SET,
        MESSAGE_ID_BEING_RESPONDED_TO: FIND.message_id,
    }
)


@dataclass
class Answering(Recorder):
    """Answers for as long as it is not cancelled, which it may look after itself."""

    handles: bool = False
    produced: list[int] = field(default_factory=list)

    async def serve(self, association: Association, asked: DimseRequest) -> AsyncIterator[DimseResponse]:
        if self.handles:
            asked.cancellation.handle()
        while not (self.handles and asked.cancellation.requested):
            self.produced.append(0xFF00)
            yield DimseResponse(asked.command.response(0xFF00))
        yield DimseResponse(asked.command.response(0xFE00, error_comment="by itself"))


@pytest.mark.parametrize("operations", [1, 3])
@pytest.mark.parametrize("handles", [False, True])
async def test_it_counts(handles: bool, operations: int) -> None:
    handler = Answering(handles=handles)
    listener = await listen(handler, "127.0.0.1", 0)
    peer = await RawPeer.connect(listener.port)
    contexts = (ProposedContext(1, STUDY_ROOT_FIND, (EXPLICIT,)),)
    await peer.send(encode_request("SCU", "SCP", contexts, UserInformation(16384, window=Window(operations, 1))))
    await peer.receive()
    for _ in range(2):  # the message id may be used again
        await peer.send(encode_message(1, FIND, b"\0\0", 16384) + encode_message(1, CANCEL, None, 16384))
        _, body = await peer.receive()
        answer = CommandSet.decode(body[6:])
        assert (answer.status, answer.text(ERROR_COMMENT)) == (0xFE00, "by itself" if handles else "")
    assert len(handler.produced) == (0 if handles else 2)
    await peer.close()
    await listener.close(0)
