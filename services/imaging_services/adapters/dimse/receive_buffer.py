"""One receive buffer an association: bytes arrive in it and PDUs are parsed in place, fragments without waiting
for the rest of their PDU, so the length of P-DATA-TF costs no memory."""

from typing import Protocol

from imaging_services.adapters.dimse.pdu import (
    FIXED_BODY_LENGTH,
    PDU_HEADER,
    PDV_HEADER,
    PDV_OVERHEAD,
    AbortReason,
    PduType,
    ProtocolViolation,
)

# room for an A-ASSOCIATE-RQ of 128 contexts with every transfer syntax of the Standard (some 145 KiB), and small
# enough to stay in the processor's cache between the read and the copy to the data set (measured)
CAPACITY = 160 * 1024
# peers exist that leave the PDV header out of their sum; DCMTK grants 100 bytes, too
PDU_LENGTH_TOLERANCE = 128

_P_DATA = int(PduType.P_DATA_TF)
_UNRECOGNIZED = {
    0x16: "TLS client hello on a port without TLS",
    0x47: "HTTP request on a DICOM port",
    0x50: "HTTP request on a DICOM port",
}


class PduSink(Protocol):
    """Takes what a buffer parses. Each method may raise ``ProtocolViolation``."""

    def check_expected(self, kind: int) -> None:
        """Raise when a PDU of this type must not come now; called as soon as its header is there."""
        ...

    def pdu(self, kind: int, body: bytes) -> None:
        """A whole PDU other than P-DATA-TF."""
        ...

    def fragment(self, context_id: int, control: int, piece: memoryview, complete: bool) -> None:
        """A piece of a presentation data value, valid until ``flush``; ``complete`` when it is the value's last."""
        ...

    def flush(self) -> None:
        """The buffer is about to be overwritten."""
        ...


class ReceiveBuffer:
    """Parses a byte stream into PDUs and PDV fragments."""

    __slots__ = ("_buffer", "_context_id", "_control", "_end", "_max_pdu", "_pdu_left", "_pdv_left", "_sink", "_view")

    def __init__(self, sink: PduSink, max_pdu_length: int, capacity: int = CAPACITY) -> None:
        self._sink = sink
        self._max_pdu = max_pdu_length + PDU_LENGTH_TOLERANCE
        self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)
        self._end = 0
        self._pdu_left = 0
        self._pdv_left = 0
        self._context_id = 0
        self._control = 0

    @property
    def in_pdu(self) -> bool:
        """A PDU has begun and is not complete."""
        return bool(self._end or self._pdu_left)

    def space(self) -> memoryview:
        """Where the next bytes go."""
        return self._view[self._end :] if self._end else self._view

    def received(self, count: int) -> None:
        """Parse after ``count`` bytes were written to ``space``. Raises ``ProtocolViolation``."""
        pos, end = 0, self._end + count
        while True:
            left = self._pdv_left
            if left:
                piece_end = pos + left if left < end - pos else end
                if piece_end == pos:
                    break
                self._pdv_left = left = left - (piece_end - pos)
                self._sink.fragment(self._context_id, self._control, self._view[pos:piece_end], not left)
                pos = piece_end
            elif end - pos < PDU_HEADER.size:
                break
            elif self._pdu_left:
                self._begin_fragment(pos)
                pos += PDV_OVERHEAD
            else:
                used = self._begin_pdu(pos, end)
                if not used:
                    break
                pos += used
        self._sink.flush()
        rest = end - pos
        if rest and pos:
            self._buffer[:rest] = self._buffer[pos:end]
        self._end = rest

    def _begin_fragment(self, pos: int) -> None:
        length, context_id, control = PDV_HEADER.unpack_from(self._buffer, pos)
        self._pdu_left -= length + 4
        if length < 2 or self._pdu_left < 0 or 0 < self._pdu_left < PDV_OVERHEAD:
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER, f"PDV of {length} bytes does not fit its PDU")
        self._context_id, self._control, self._pdv_left = context_id, control, length - 2
        if not self._pdv_left:
            self._sink.fragment(context_id, control, self._view[:0], True)

    def _begin_pdu(self, pos: int, end: int) -> int:
        kind, length = PDU_HEADER.unpack_from(self._buffer, pos)
        if kind == _P_DATA:
            self._sink.check_expected(kind)
            if not PDV_OVERHEAD <= length <= self._max_pdu:
                raise ProtocolViolation(AbortReason.INVALID_PARAMETER, f"P-DATA-TF of {length} bytes")
            self._pdu_left = length
            return PDU_HEADER.size
        self._check(kind, length)
        if end - pos - PDU_HEADER.size < length:
            return 0
        start = pos + PDU_HEADER.size
        self._sink.pdu(kind, bytes(self._view[start : start + length]))
        return PDU_HEADER.size + int(length)

    def _check(self, kind: int, length: int) -> None:
        if not PduType.A_ASSOCIATE_RQ <= kind <= PduType.A_ABORT:
            what = _UNRECOGNIZED.get(kind, f"PDU type {kind:02X}H is not of PS3.8")
            raise ProtocolViolation(AbortReason.UNRECOGNIZED_PDU, what)
        self._sink.check_expected(kind)
        limit = len(self._buffer) - PDU_HEADER.size if kind <= PduType.A_ASSOCIATE_AC else FIXED_BODY_LENGTH
        if length > limit or (limit == FIXED_BODY_LENGTH and length != limit):
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER, f"{PduType(kind).name} of {length} bytes")
