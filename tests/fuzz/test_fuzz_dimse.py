"""PDUs and command sets that lie: each is understood or refused as a violation, and nothing else happens."""

import contextlib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from imaging_services.adapters.dimse.associate import decode_accept, decode_request, encode_accept, encode_request
from imaging_services.adapters.dimse.data_set import FlowControl
from imaging_services.adapters.dimse.messages import IncomingMessage, MessageReader, encode_message
from imaging_services.adapters.dimse.pdu import ProtocolViolation, decode_abort, decode_reject
from imaging_services.adapters.dimse.receive_buffer import ReceiveBuffer
from imaging_services.adapters.dimse.user_information import UserInformation, Window
from imaging_services.domain.dicom.command_set import CommandField, CommandSet, request, store_request
from imaging_services.domain.dicom.dimse import AcceptedContext, ProposedContext, Role, UserIdentity
from imaging_services.domain.errors import InvalidInput
from support.dimse import CT, EXPLICIT, IMPLICIT, MR
from support.fuzzing import fuzzed, noise, pieces

COMMAND = store_request(CT, "1.2.3")
HEADER = 6
CONTEXTS = (
    ProposedContext(1, CT, (EXPLICIT, IMPLICIT), related_general=(MR,)),
    ProposedContext(3, MR, (IMPLICIT,)),
)
USER = UserInformation(
    65536,
    window=Window(8, 2),
    roles={CT: Role(True, True)},
    extended={MR: b"\1\1\0"},
    user_identity=UserIdentity(2, True, b"user", b"passcode"),
)
REQUEST = encode_request("SCU", "ARCHIVE", CONTEXTS, USER)
ACCEPT = encode_accept(
    decode_request(REQUEST[HEADER:]),
    {1: AcceptedContext(1, CT, EXPLICIT)},
    {3: 4},
    UserInformation(4096, window=Window(1, 1), roles={CT: Role(True, True)}, identity_response=b"ticket"),
)
MESSAGES = (
    encode_message(1, COMMAND, bytes(300), 200),
    encode_message(1, COMMAND, b"", 16384),
    REQUEST + encode_message(3, COMMAND, b"ab", 64) + bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0)),
    bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, 1)),
)
ITEMS = tuple(
    bytes((kind, 0)) for kind in (0x10, 0x20, 0x21, 0x30, 0x40, 0x50, 0x51, 0x53, 0x54, 0x56, 0x57, 0x58, 0x59)
)


class Connection:
    """A receive buffer with a message reader behind it, as a connection has."""

    def __init__(self) -> None:
        self.messages: list[IncomingMessage] = []
        self.reader = MessageReader(FlowControl(lambda: None, lambda: None), self.messages.append)
        self.reader.open({1: AcceptedContext(1, CT, EXPLICIT), 3: AcceptedContext(3, CT, EXPLICIT)})
        self.fragment, self.flush = self.reader.fragment, self.reader.flush
        self.buffer = ReceiveBuffer(self, 16384, 1 << 16)

    def check_expected(self, kind: int) -> None:
        """Everything is expected."""

    def pdu(self, kind: int, body: bytes) -> None:
        decode = {1: decode_request, 2: decode_accept, 3: decode_reject, 7: decode_abort}.get(kind)
        if decode is not None:
            decode(body)

    def take(self, data: bytes) -> None:
        while data:
            space = self.buffer.space()
            count = min(len(space), len(data))
            space[:count] = data[:count]
            self.buffer.received(count)
            data = data[count:]


@contextlib.contextmanager
def violations() -> Iterator[None]:
    """What a sender is told; any other exception is a fault of ours."""
    with contextlib.suppress(ProtocolViolation, InvalidInput):
        yield


@fuzzed(60)
@given(noise(MESSAGES), st.data())
async def test_streams_of_pdus(stream: bytes, data: st.DataObject) -> None:
    connection = Connection()
    with violations():
        for piece in data.draw(pieces(stream)):
            connection.take(piece)
    for message in connection.messages:
        assert isinstance(message.command, CommandSet)


@fuzzed(80)
@given(noise([REQUEST[HEADER:]], ITEMS))
def test_association_requests(body: bytes) -> None:
    with violations():
        decoded = decode_request(body)
        assert len(decoded.calling_ae_title) <= 16


@fuzzed(60)
@given(noise([ACCEPT[HEADER:]], ITEMS))
def test_association_answers(body: bytes) -> None:
    with violations():
        decode_accept(body)


@fuzzed(80)
@given(
    noise([COMMAND.encode(), request(CommandField.C_FIND_RQ, CT, message_id=7).encode(), COMMAND.response(0).encode()])
)
def test_command_sets(encoded: bytes) -> None:
    with violations():
        command = CommandSet.decode(encoded)
        assert CommandSet.decode(command.encode()).elements == command.elements
        _ = command.sop_class_uid, command.sop_instance_uid, command.has_data_set
        _ = command.response(0x0110, error_comment="no")
