"""From bytes to messages: any cut of the stream gives the same, and lies about lengths are violations."""

import asyncio
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging_services.adapters.dimse.data_set import FlowControl, IncomingDataSet
from imaging_services.adapters.dimse.messages import IncomingMessage, MessageReader, encode_message, fragment_size
from imaging_services.adapters.dimse.pdu import AbortReason, ProtocolViolation
from imaging_services.adapters.dimse.receive_buffer import ReceiveBuffer
from imaging_services.domain.dicom.command_set import CommandSet, store_request
from imaging_services.domain.dicom.dimse import AcceptedContext
from imaging_services.domain.errors import BackendUnavailable, InvalidInput
from support.dimse import CT, EXPLICIT

COMMAND = store_request(CT, "1.2.3")


class Receiver:
    """A receive buffer with a message reader behind it, as a connection has."""

    def __init__(self, max_pdu_length: int = 16384, capacity: int = 1 << 16) -> None:
        self.messages: list[IncomingMessage] = []
        self.pdus: list[tuple[int, bytes]] = []
        self.calls: list[str] = []
        flow = FlowControl(lambda: self.calls.append("pause"), lambda: self.calls.append("resume"))
        self.reader = MessageReader(flow, self.messages.append)
        self.reader.open({1: AcceptedContext(1, CT, EXPLICIT), 3: AcceptedContext(3, CT, EXPLICIT)})
        self.fragment, self.flush = self.reader.fragment, self.reader.flush
        self.buffer = ReceiveBuffer(self, max_pdu_length, capacity)

    def check_expected(self, kind: int) -> None:
        if kind == 2:
            raise ProtocolViolation(AbortReason.UNEXPECTED_PDU, "not now")

    def pdu(self, kind: int, body: bytes) -> None:
        self.pdus.append((kind, body))

    def take(self, data: bytes, step: int | None = None) -> None:
        while data:
            space = self.buffer.space()
            count = min(len(space), len(data), step or len(data))
            space[:count] = data[:count]
            self.buffer.received(count)
            data = data[count:]


async def read(data: IncomingDataSet | None) -> bytes:
    assert data is not None
    return b"".join([block async for block in data])


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=3000), st.integers(20, 600), st.integers(1, 700))
async def test_any_cut_gives_the_same_message(data: bytes, max_pdu: int, step: int) -> None:
    receiver = Receiver(capacity=1024)
    receiver.take(encode_message(1, COMMAND, data, max_pdu) + bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0)), step)
    [message] = receiver.messages
    assert message.command == COMMAND
    assert await read(message.data) == data + bytes(len(data) % 2)  # fragments are even, PS3.8 annex E.1
    assert receiver.pdus == [(5, bytes(4))]


def pdv(context_id: int, control: int, data: bytes, lie: int = 0) -> bytes:
    return struct.pack(">IBB", len(data) + 2 + lie, context_id, control) + data


def p_data(*values: bytes, lie: int = 0) -> bytes:
    body = b"".join(values)
    return struct.pack(">BxI", 4, len(body) + lie) + body


async def test_several_values_in_one_pdu() -> None:
    receiver = Receiver()
    command = COMMAND.encode()
    values = pdv(1, 1, command[:10]), pdv(1, 3, command[10:]), pdv(1, 0, b"ab"), pdv(1, 0, b""), pdv(1, 2, b"cd")
    receiver.take(p_data(*values))
    assert await read(receiver.messages[0].data) == b"abcd"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (p_data(pdv(1, 3, COMMAND.encode(), lie=50)), AbortReason.INVALID_PARAMETER),
        (p_data(pdv(1, 3, COMMAND.encode(), lie=-3)), AbortReason.INVALID_PARAMETER),
        (p_data(struct.pack(">IBB", 1, 1, 3)), AbortReason.INVALID_PARAMETER),
        (p_data(struct.pack(">IBB", 0xFFFFFFFF, 1, 3)), AbortReason.INVALID_PARAMETER),
        (p_data(), AbortReason.INVALID_PARAMETER),
        (struct.pack(">BxI", 4, 1 << 20), AbortReason.INVALID_PARAMETER),
        (struct.pack(">BxI", 1, 0xFFFFFFFF), AbortReason.INVALID_PARAMETER),
        (struct.pack(">BxI", 5, 5), AbortReason.INVALID_PARAMETER),
        (struct.pack(">BxI", 0x42, 4), AbortReason.UNRECOGNIZED_PDU),
        (bytes.fromhex("160301020001"), AbortReason.UNRECOGNIZED_PDU),
        (struct.pack(">BxI", 2, 4), AbortReason.UNEXPECTED_PDU),
        (p_data(pdv(5, 3, COMMAND.encode())), AbortReason.INVALID_PARAMETER),
        (p_data(pdv(1, 2, b"data")), AbortReason.UNEXPECTED_PARAMETER),
        (p_data(pdv(1, 3, COMMAND.encode()), pdv(3, 2, b"data")), AbortReason.INVALID_PARAMETER),
        (p_data(pdv(1, 3, COMMAND.encode()), pdv(1, 3, b"data")), AbortReason.UNEXPECTED_PARAMETER),
        (p_data(pdv(1, 1, b"a"), pdv(3, 3, b"b")), AbortReason.INVALID_PARAMETER),
        (p_data(pdv(1, 3, b"garbage!" * 3)), AbortReason.INVALID_PARAMETER),
        (p_data(pdv(1, 3, CommandSet({}).encode())), AbortReason.INVALID_PARAMETER),
    ],
)
async def test_lies_are_violations(data: bytes, reason: AbortReason) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        Receiver().take(data)
    assert caught.value.reason is reason


async def test_endless_command_set_is_stopped() -> None:
    receiver = Receiver()
    with pytest.raises(ProtocolViolation, match="65536"):
        receiver.take(p_data(pdv(1, 1, bytes(10000))) * 10)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
async def test_any_bytes_parse_or_are_a_violation(noise: bytes) -> None:
    receiver = Receiver()
    try:
        receiver.take(p_data(pdv(1, 3, noise)) + noise)
    except ProtocolViolation:
        return
    assert receiver.buffer.in_pdu or receiver.reader.in_message or receiver.messages or receiver.pdus


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120))
def test_any_command_set_parses_or_is_invalid(noise: bytes) -> None:
    try:
        command = CommandSet.decode(noise)
    except InvalidInput:
        return
    again = CommandSet.decode(command.encode())
    assert again.elements.keys() == command.elements.keys()


async def test_reading_pauses_while_nobody_takes() -> None:
    receiver = Receiver(max_pdu_length=131072)
    encoded = encode_message(1, COMMAND, bytes(3 << 20), 131072)
    receiver.take(encoded[: 2 << 20])
    assert receiver.calls == ["pause"]
    stream = receiver.messages[0].data
    assert stream is not None
    reading = asyncio.ensure_future(read(stream))
    await asyncio.sleep(0)
    assert receiver.calls == ["pause", "resume"]
    receiver.take(encoded[2 << 20 :])
    assert len(await reading) == 3 << 20


async def test_a_lost_association_is_an_error_even_with_data_waiting() -> None:
    receiver = Receiver()
    receiver.take(encode_message(1, COMMAND, bytes(8000), 4096)[:-10])
    receiver.reader.lost("gone")
    with pytest.raises(BackendUnavailable, match="gone"):
        await read(receiver.messages[0].data)
    stream = receiver.messages[0].data
    assert stream is not None
    with pytest.raises(BackendUnavailable, match="gone"):
        await stream.drain()


def test_fragments_are_even_and_fit() -> None:
    assert fragment_size(16384) == 16378
    assert fragment_size(16383) == 16376
    assert fragment_size(1) == 2
