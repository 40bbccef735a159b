"""A DICOM connection: bytes to PDUs and messages, writing, time limits, abort and the wait for the peer to close."""

import asyncio
import socket
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Protocol, cast

import structlog

from imaging_services.adapters.dimse.data_set import FlowControl
from imaging_services.adapters.dimse.messages import Buffer, IncomingMessage, MessageReader
from imaging_services.adapters.dimse.pdu import (
    AbortReason,
    AbortSource,
    PduType,
    ProtocolViolation,
    decode_abort,
    encode_abort,
)
from imaging_services.adapters.dimse.receive_buffer import ReceiveBuffer
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.domain.dicom.dimse import AcceptedContext
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded

log = structlog.get_logger(__name__)

_WRITE_BUFFER = 512 * 1024
_DROPPED = memoryview(bytearray(64 * 1024))


class _State(Enum):
    OPEN = auto()
    CLOSING = auto()  # Sta13 of PS3.8 section 9.2: what still comes is dropped until the peer closes
    CLOSED = auto()


class ConnectionUser(Protocol):
    """The association that a connection carries. ``ProtocolViolation`` raised in a call aborts it."""

    def connected(self) -> None:
        """The transport is up."""
        ...

    def check_expected(self, kind: int) -> None:
        """Raise when a PDU of this type must not come now."""
        ...

    def pdu_received(self, kind: int, body: bytes) -> None:
        """A PDU other than P-DATA-TF and A-ABORT."""
        ...

    def message_received(self, message: IncomingMessage) -> None:
        """A message; its data set may still be arriving."""
        ...

    def lost(self, why: str) -> None:
        """The association is over without A-RELEASE; called once at most."""
        ...

    def time_limit(self) -> tuple[float, str] | None:
        """How long the peer may be silent now, in seconds, and what is then missing; None: as long as it likes."""
        ...


class Connection(asyncio.BufferedProtocol):
    """The transport side of an association, of either role."""

    def __init__(self, user: ConnectionUser, limits: AssociationLimits) -> None:
        self._user = user
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._state = _State.CLOSED
        self._flow = FlowControl(self._pause, self._resume)
        self._reader = MessageReader(self._flow, user.message_received)
        self._buffer = ReceiveBuffer(self, limits.max_pdu_length)
        self._heard = 0.0
        self._established = False
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.gone = asyncio.Event()
        self.peer = ""

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        _prepare(self._transport)
        name = self._transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unknown"
        self._state = _State.OPEN
        self._heard = self._loop.time()
        self._user.connected()
        self._check_time()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.space() if self._state is _State.OPEN else _DROPPED

    def buffer_updated(self, nbytes: int) -> None:
        if self._state is not _State.OPEN:
            return
        if self._established:  # before, the time counts from the connection on (ARTIM)
            self._heard = self._loop.time()
        try:
            self._buffer.received(nbytes)
        except ProtocolViolation as violation:
            if self._state is not _State.OPEN:
                return
            log.warning("peer breaks the protocol", peer=self.peer, why=str(violation), reason=int(violation.reason))
            self.abort(violation.source, violation.reason, str(violation))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        was, self._state = self._state, _State.CLOSED
        self._stop_timer()
        self._writable.set()
        self.gone.set()
        if was is _State.OPEN:
            self._lost(f"connection lost: {exc}" if exc else "peer closed the connection")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # PduSink

    def check_expected(self, kind: int) -> None:
        if kind != PduType.A_ABORT:
            self._user.check_expected(kind)

    def pdu(self, kind: int, body: bytes) -> None:
        if self._state is not _State.OPEN:
            return
        if kind == PduType.A_ABORT:
            source, reason = decode_abort(body)
            log.info("association aborted by peer", peer=self.peer, source=source, reason=reason)
            self.close()
            self._lost(f"peer aborted the association (source {source}, reason {reason})")
        else:
            self._user.pdu_received(kind, body)

    def fragment(self, context_id: int, control: int, piece: memoryview, complete: bool) -> None:
        self._reader.fragment(context_id, control, piece, complete)

    def flush(self) -> None:
        self._reader.flush()

    # for the association

    @property
    def is_open(self) -> bool:
        """Neither side has ended the association."""
        return self._state is _State.OPEN

    @property
    def in_message(self) -> bool:
        """The peer has begun a message and not ended it."""
        return self._reader.in_message

    @property
    def receiving(self) -> bool:
        """The peer has begun a PDU or message and not ended it."""
        return self._reader.in_message or self._buffer.in_pdu

    def open(self, contexts: Mapping[int, AcceptedContext]) -> None:
        """The association is established: messages may come."""
        self._reader.open(contexts)
        self._established = True
        self.heard()

    def write(self, data: bytes) -> None:
        """Send bytes of whole PDUs in one call."""
        if self._state is _State.OPEN:
            self._transport.write(data)

    async def send(self, buffers: Iterable[Buffer]) -> None:
        """Send in one call and wait while too much is unsent.

        Raises ``BackendUnavailable`` when the connection is lost, ``DeadlineExceeded`` when the peer does not read.
        """
        if self._state is _State.OPEN:
            self._transport.writelines(list(buffers))
        await self.drain()

    async def drain(self) -> None:
        """Wait while too much is unsent; errors as of ``send``."""
        if not self._writable.is_set():
            try:
                async with asyncio.timeout(self._limits.dimse_timeout_seconds):
                    await self._writable.wait()
            except TimeoutError:
                self.abort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED, "peer does not read")
                raise DeadlineExceeded(f"{self.peer} does not read what is sent") from None
        if self._state is not _State.OPEN:
            raise BackendUnavailable(f"association with {self.peer} is lost")

    def abort(self, source: int, reason: int, why: str) -> None:
        """Send A-ABORT (actions AA-1 and AA-8) and wait for the peer to close; the user's ``lost`` is called."""
        if self._state is _State.OPEN:
            self._transport.write(encode_abort(source, reason))
            self.finish()
            self._lost(why)

    def finish(self, data: bytes = b"") -> None:
        """Send the last PDU and leave the close to the peer, for the time of ARTIM."""
        if self._state is not _State.OPEN:
            return
        if data:
            self._transport.write(data)
        self._state = _State.CLOSING
        self._stop_timer()
        self._timer = self._loop.call_later(self._limits.artim_timeout_seconds, self._transport.abort)
        if self._flow.paused:
            self._resume()

    def close(self, data: bytes = b"") -> None:
        """Send what is unsent, and close."""
        if self._state is not _State.CLOSED:
            if data:
                self._transport.write(data)
            self._state = _State.CLOSING
            self._stop_timer()
            self._transport.close()

    def kill(self) -> None:
        """Close at once, whatever is unsent."""
        if self._state is not _State.CLOSED:
            self._transport.abort()

    def heard(self) -> None:
        """Count the peer's silence from now."""
        self._heard = self._loop.time()

    @property
    def silent_seconds(self) -> float:
        """How long the peer has been silent, or since its last request was answered."""
        return self._loop.time() - self._heard

    def _check_time(self) -> None:
        """Abort when the peer has been silent too long; else look again, often enough for a shorter limit."""
        limit = None if self._flow.paused else self._user.time_limit()
        left = interval = min(self._limits.dimse_timeout_seconds, self._limits.idle_timeout_seconds) / 4
        if limit is not None:
            seconds, missing = limit
            left = self._heard + seconds - self._loop.time()
            if left <= 0:
                log.warning("peer is silent", peer=self.peer, missing=missing, seconds=seconds)
                why = f"no {missing} in {seconds:g} s"
                if self._established:
                    self.abort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED, why)
                else:  # ARTIM in Sta2: action AA-2 closes without an A-ABORT
                    self.close()
                    self._lost(why)
                return
        self._timer = self._loop.call_later(min(left, interval), self._check_time)

    def _lost(self, why: str) -> None:
        self._reader.lost(why)
        self._user.lost(why)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._heard = self._loop.time()


def _prepare(transport: asyncio.Transport) -> None:
    handle = transport.get_extra_info("socket")
    if handle is not None and handle.family in (socket.AF_INET, socket.AF_INET6):
        # without it small PDUs wait for the peer's delayed acknowledgement, 40 ms each
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
