"""Answers made of files: the kernel sends them, no byte of them comes into this process (sendfile(2)).

An application that finds ``FILES`` among the extensions of a request's scope may send messages of that type instead of
``http.response.body``, after a start that named a Content-Length: ``segments`` (``Segment``), ``length`` (of all of
them together). More of the body has to follow. Like a body that ends early, an error cuts the connection.
"""

import asyncio
import errno
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from imaging_services.adapters.http.patience import PatientProtocol
from imaging_services.domain.errors import BackendUnavailable, NotFound

log = structlog.get_logger(__name__)

FILES = "imaging.response.files"
"""The extension, and the type of its messages."""

_PATIENCE_MS = 20
"""How long a thread waits for a peer that reads: it costs less than a change of threads."""
_STALLED_SECONDS = 300.0
"""A peer that does not free a third of the kernel's buffer in that time is given up."""
_TURN_BYTES = 16 * 1024 * 1024
"""What a thread sends at most before others get their turn."""
_BLOCK = 256 * 1024
_MORE = getattr(socket, "MSG_MORE", 0)
_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class ClientGone(ConnectionError):
    """The client closed the connection, or stopped reading, before the answer was complete."""


class FileGone(NotFound):
    """A file is not there any more. ``unsent`` segments, the last ones, have not been begun: what they are of can still
    be sent by other means."""

    def __init__(self, unsent: int) -> None:
        super().__init__("get: no such object")
        self.unsent = unsent


@dataclass(frozen=True, slots=True)
class Segment:
    """``lead``, then ``length`` bytes of the file from ``start``."""

    lead: bytes
    path: Path
    start: int
    length: int

    @property
    def sent(self) -> int:
        """How many bytes it makes."""
        return len(self.lead) + self.length


class FileProtocol(PatientProtocol):
    """HTTP/1.1 with the extension."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.scheme == "http":  # over TLS the kernel does not know the keys
            cycle.scope["extensions"] = {FILES: {}}
            app = _with_files(app, cycle)
        super()._start_asgi_task(cycle, app)


def _with_files(app: Any, cycle: RequestResponseCycle) -> Any:
    async def run(scope: Any, receive: Any, send: Any) -> None:
        async def send_or_transmit(message: Any) -> None:
            if message["type"] == FILES:
                await _transmit(cycle, message["segments"], message["length"])
            else:
                await send(message)

        await app(scope, receive, send_or_transmit)

    return run


async def _transmit(cycle: RequestResponseCycle, segments: Sequence[Segment], length: int) -> None:
    """Send the segments behind what the transport has been given. Raises ``FileGone``, ``BackendUnavailable`` and
    ``ClientGone``."""
    transport = cycle.transport
    _require_client(cycle)  # uvloop's transports cannot be asked for anything once they are closed
    if cycle.chunked_encoding is not False or length > cycle.expected_content_length:
        raise RuntimeError("files are sent within a Content-Length only")
    transport.set_write_buffer_limits(high=0)
    await cycle.flow.drain()  # who is cancelled here leaves an answer that ends the connection
    _require_client(cycle)
    transport.set_write_buffer_limits()
    # A descriptor of our own: that of the transport may be closed, and be another connection's, while a thread has it.
    transmission = _Transmission(_duplicate(transport.get_extra_info("socket")), segments)
    try:
        await transmission.run()
    except FileGone as gone:
        cycle.expected_content_length -= length - sum(segment.sent for segment in segments[-gone.unsent :])
        raise
    except (ConnectionError, TimeoutError) as error:
        raise ClientGone(str(error)) from None
    cycle.expected_content_length -= length


def _require_client(cycle: RequestResponseCycle) -> None:
    if cycle.disconnected or cycle.transport.is_closing():
        raise ClientGone("the client has closed the connection")


def _duplicate(connection: Any) -> socket.socket:
    return socket.socket(connection.family, connection.type, connection.proto, os.dup(connection.fileno()))


class _Transmission:
    """Segments on their way through one connection."""

    def __init__(self, connection: socket.socket, segments: Sequence[Segment]) -> None:
        self._connection, self._left = connection, deque(segments)
        connection.setblocking(False)
        self._writable = select.poll()
        self._writable.register(connection, select.POLLOUT)
        self._lead, self._file = b"", -1
        self._position = self._end = 0
        self._stopped = False

    async def run(self) -> None:
        """Send everything, in threads while the peer reads. Closes the connection's descriptor."""
        loop = asyncio.get_running_loop()
        work: asyncio.Future[bool] | None = None
        try:
            while self._left or self._file >= 0:
                work = loop.run_in_executor(None, self._turn)
                if not await asyncio.shield(work):
                    await self._until_writable(loop)
        finally:
            self._stopped = True
            if work is None or work.done():
                self._close()
            else:  # cancelled: the thread ends after its next step
                work.add_done_callback(self._close_after)

    async def _until_writable(self, loop: asyncio.AbstractEventLoop) -> None:
        writable = asyncio.Event()
        loop.add_writer(self._connection, writable.set)
        try:
            async with asyncio.timeout(_STALLED_SECONDS):
                await writable.wait()
        finally:
            loop.remove_writer(self._connection)

    def _turn(self) -> bool:
        """Send as much as the peer takes; False when it takes no more for now."""
        until = _TURN_BYTES
        while until > 0 and not self._stopped:
            if self._file < 0:
                if not self._left:
                    break
                self._open(self._left.popleft())
            try:
                until -= self._step()
            except BlockingIOError:
                if not self._writable.poll(_PATIENCE_MS):
                    return False
        return True

    def _open(self, segment: Segment) -> None:
        try:
            self._file = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise FileGone(len(self._left) + 1) from None
        except OSError as error:
            raise BackendUnavailable(f"get: {error.strerror}") from error
        self._lead, self._position, self._end = segment.lead, segment.start, segment.start + segment.length

    def _step(self) -> int:
        """Send some bytes of the open segment. Raises ``BlockingIOError`` when there is no room for any."""
        if self._lead:
            sent = self._connection.send(self._lead, _MORE)
            self._lead = self._lead[sent:]
            return sent
        sent = 0
        if self._position < self._end:
            sent = self._send_file()
            if sent == 0:
                raise BackendUnavailable("the file is shorter than the manifest says")
            self._position += sent
        if self._position == self._end:
            os.close(self._file)
            self._file = -1
        return sent

    def _send_file(self) -> int:
        wanted = self._end - self._position
        try:
            return os.sendfile(self._connection.fileno(), self._file, self._position, wanted)
        except OSError as error:
            if error.errno not in _NO_SENDFILE:
                if isinstance(error, BlockingIOError | ConnectionError | TimeoutError):
                    raise
                raise BackendUnavailable(f"get: {error.strerror}") from error
        block = os.pread(self._file, min(wanted, _BLOCK), self._position)
        return self._connection.send(block) if block else 0

    def _close_after(self, work: "asyncio.Future[bool]") -> None:
        error = None if work.cancelled() else work.exception()
        if error is not None:  # nobody waits for it any more: the request is over
            log.debug("sending files ended with an error", error=f"{type(error).__name__}: {error}")
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._connection.close()
