"""DIMSE messages in P-DATA fragments (PS3.7 section 6.3, PS3.8 annex E), received and sent."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from imaging_services.adapters.dimse.data_set import FlowControl, IncomingDataSet
from imaging_services.adapters.dimse.pdu import (
    COMMAND_FRAGMENT,
    LAST_FRAGMENT,
    P_DATA_HEADER,
    PDV_OVERHEAD,
    AbortReason,
    PduType,
    ProtocolViolation,
)
from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.dimse import AcceptedContext
from imaging_services.domain.errors import InvalidInput

PADDING = b"\0"
MAX_COMMAND_LENGTH = 64 * 1024
MAX_IDENTIFIER_LENGTH = 16 * 1024 * 1024
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message whose command set is complete and whose data set, if any, is arriving."""

    context: AcceptedContext
    command: CommandSet
    data: IncomingDataSet | None


class MessageReader:
    """Puts fragments together: command sets whole, data sets as they come."""

    __slots__ = ("_command", "_command_context", "_contexts", "_data", "_flow", "_last", "_on_message", "_pieces")

    def __init__(self, flow: FlowControl, on_message: Callable[[IncomingMessage], None]) -> None:
        self._flow = flow
        self._on_message = on_message
        self._contexts: Mapping[int, AcceptedContext] = {}
        self._command = bytearray()
        self._command_context = 0
        self._data: IncomingDataSet | None = None
        self._pieces: list[memoryview] = []
        self._last = False

    @property
    def in_message(self) -> bool:
        """A message has begun and is not complete."""
        return bool(self._command) or self._data is not None

    def open(self, contexts: Mapping[int, AcceptedContext]) -> None:
        """Fragments may come, in these contexts."""
        self._contexts = contexts

    def fragment(self, context_id: int, control: int, piece: memoryview, complete: bool) -> None:
        """A piece of a fragment. Raises ``ProtocolViolation``."""
        if control & COMMAND_FRAGMENT:
            self._command_fragment(context_id, piece, complete and bool(control & LAST_FRAGMENT))
            return
        if self._data is None:
            raise ProtocolViolation(AbortReason.UNEXPECTED_PARAMETER, "data set fragment without its command")
        if context_id != self._command_context:
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER, f"data set fragment in context {context_id}, not its command's"
            )
        self._pieces.append(piece)
        if complete and control & LAST_FRAGMENT:
            self.flush()
            self._data.end()
            self._data = None

    def flush(self) -> None:
        """Copy what lies in the receive buffer to the data set, all pieces in one block."""
        if self._pieces and self._data is not None:
            pieces = self._pieces
            self._data.feed(bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces))
            self._pieces = []

    def lost(self, why: str) -> None:
        """No more fragments will come."""
        if self._data is not None:
            self._data.fail(why)
            self._data = None
        self._pieces = []

    def _command_fragment(self, context_id: int, piece: memoryview, last: bool) -> None:
        if self._data is not None:
            raise ProtocolViolation(AbortReason.UNEXPECTED_PARAMETER, "command fragment before the data set's end")
        if context_id not in self._contexts:
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER, f"fragment in presentation context {context_id}, not accepted"
            )
        if self._command and context_id != self._command_context:
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER, "command set goes on in another context")
        self._command += piece
        self._command_context = context_id
        if len(self._command) > MAX_COMMAND_LENGTH:
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER, f"command set above {MAX_COMMAND_LENGTH} bytes")
        if last:
            self._dispatch(self._contexts[context_id])

    def _dispatch(self, context: AcceptedContext) -> None:
        try:
            command = CommandSet.decode(self._command)
            _ = command.command_field
        except InvalidInput as error:
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER, str(error)) from error
        self._command = bytearray()
        if command.has_data_set:
            self._data = IncomingDataSet(self._flow)
        self._on_message(IncomingMessage(context, command, self._data))


def error_comment(text: str) -> str:
    """What of a sentence fits an Error Comment (0000,0902): an LO, in which a backslash or a control character would be
    read as something else."""
    return "".join(one if one.isprintable() and one != "\\" else " " for one in text)[:64]


def fragment_size(max_pdu_length: int) -> int:
    """Bytes of a fragment that fill a P-DATA-TF; even, as each fragment must be (PS3.8 annex E.1)."""
    return max((max_pdu_length - PDV_OVERHEAD) & ~1, 2)


def p_data_header(context_id: int, control: int, size: int) -> bytes:
    """What comes before the ``size`` bytes of the one fragment of a P-DATA-TF."""
    return P_DATA_HEADER.pack(PduType.P_DATA_TF, size + PDV_OVERHEAD, size + 2, context_id, control)


def p_data(context_id: int, control: int, data: Buffer, max_pdu_length: int) -> Iterator[Buffer]:
    """The P-DATA-TFs of a command set (``control`` 1) or data set (0), as headers and slices of it.

    An odd data set, as a deflated one may be, is padded with NUL (PS3.5 section A.5): peers abort on odd fragments.
    """
    size, view = fragment_size(max_pdu_length), memoryview(data)
    for start in range(0, max(len(view), 1), size):
        piece = view[start : start + size]
        last = LAST_FRAGMENT if start + size >= len(view) else 0
        padding = PADDING[: len(piece) % 2]
        yield p_data_header(context_id, control | last, len(piece) + len(padding))
        yield piece
        if padding:
            yield padding


def encode_message(context_id: int, command: CommandSet, data: Buffer | None, max_pdu_length: int) -> bytes:
    """A whole small message, to be written in one call."""
    encoded = command.encode()
    if data is None and len(encoded) + PDV_OVERHEAD <= max_pdu_length:
        return p_data_header(context_id, COMMAND_FRAGMENT | LAST_FRAGMENT, len(encoded)) + encoded
    parts = list(p_data(context_id, COMMAND_FRAGMENT, encoded, max_pdu_length))
    if data is not None:
        parts.extend(p_data(context_id, 0, data, max_pdu_length))
    return b"".join(parts)


async def whole(data: IncomingDataSet) -> bytes:
    """A data set that is needed whole. Raises ``InvalidInput`` when it is too long for that."""
    blocks, size = [], 0
    async for block in data:
        size += len(block)
        if size > MAX_IDENTIFIER_LENGTH:
            raise InvalidInput(f"data set of more than {MAX_IDENTIFIER_LENGTH} bytes")
        blocks.append(block)
    return b"".join(blocks)
