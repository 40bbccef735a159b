"""Sending a data set of any size: fragments in batches, each batch in one call, none copied."""

from collections import deque
from collections.abc import AsyncIterator, Iterator

from imaging_services.adapters.dimse.connection import Connection
from imaging_services.adapters.dimse.messages import PADDING, Buffer, fragment_size, p_data, p_data_header
from imaging_services.adapters.dimse.pdu import LAST_FRAGMENT

_BATCH = 256 * 1024


async def send_data_set(
    connection: Connection, first: bytes, context_id: int, data: bytes | AsyncIterator[bytes], max_pdu_length: int
) -> None:
    """Send ``first`` (the command's PDUs) and then the data set, waiting while too much is unsent.

    Raises ``BackendUnavailable``, ``DeadlineExceeded`` and whatever the iterator raises.
    """
    if isinstance(data, bytes | bytearray | memoryview):
        await _send(connection, first, p_data(context_id, 0, data, max_pdu_length))
        return
    fragments = _Fragments(context_id, fragment_size(max_pdu_length))
    pending: bytes = first
    async for block in data:
        await _send(connection, pending, fragments.add(block))
        pending = b""
    await _send(connection, pending, fragments.end())


async def _send(connection: Connection, first: bytes, buffers: Iterator[Buffer]) -> None:
    batch: list[Buffer] = [first] if first else []
    size = len(first)
    for buffer in buffers:
        batch.append(buffer)
        size += len(buffer)
        if size >= _BATCH:
            await connection.send(batch)
            batch, size = [], 0
    if batch:
        await connection.send(batch)


class _Fragments:
    """Cuts blocks of any length into fragments of one length; keeps back what may turn out to be the last."""

    def __init__(self, context_id: int, size: int) -> None:
        self._context_id = context_id
        self._size = size
        self._kept: deque[memoryview] = deque()
        self._length = 0

    def add(self, block: bytes) -> Iterator[Buffer]:
        """PDUs that are complete with this block."""
        if block:
            self._kept.append(memoryview(block))
            self._length += len(block)
        while self._length > self._size:
            yield from self._pdu(self._size, 0)

    def end(self) -> Iterator[Buffer]:
        """The last PDU, padded to an even length as ``p_data`` does."""
        if self._length % 2:
            self._kept.append(memoryview(PADDING))
            self._length += 1
        yield from self._pdu(self._length, LAST_FRAGMENT)

    def _pdu(self, size: int, control: int) -> Iterator[Buffer]:
        yield p_data_header(self._context_id, control, size)
        self._length -= size
        while size:
            block = self._kept.popleft()
            if len(block) > size:
                self._kept.appendleft(block[size:])
                block = block[:size]
            size -= len(block)
            yield block
