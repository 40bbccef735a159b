"""Clients that fall silent are given up: uvicorn alone waits without limit for one that neither reads nor sends."""

import asyncio
import fcntl
import struct
import termios
from typing import Any

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 150.0
"""A client whose turn it is and that does nothing for one to two times as long is given up."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1. A connection is looked at every 150 seconds, and closed when since the last look the client
    has taken nothing of an answer, sent nothing of a body that is waited for, or not completed the head of a request.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._received = self._heads = self._requests = self._resumed = 0
        self._seen: tuple[str, int, int] | None = None
        self._next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        self._next_look = self.loop.call_later(_LOOK_SECONDS, self.look)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        if self._next_look is not None:
            self._next_look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._received += len(data)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._heads += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See httptools."""
        self._requests += 1
        super().on_message_complete()

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._resumed += 1
        super().resume_writing()

    def look(self) -> None:
        """Close the connection when the client has done nothing since the last look, though it was its turn."""
        waiting = self._waiting_for()
        if waiting is not None and waiting == self._seen:
            log.info("client given up", has_not=waiting[0], received=self._received)
            self.transport.abort()  # its answer, if there is one, ends as when the client had gone
            return
        self._seen = waiting
        self._next_look = self.loop.call_later(_LOOK_SECONDS, self.look)

    def _waiting_for(self) -> tuple[str, int, int] | None:
        """What is waited for, and how far it has come; None when it is not the client's turn."""
        unsent = self.transport.get_write_buffer_size()
        if unsent:  # nothing is added while the application waits for room, nor behind the end
            return "read its answer", unsent + self._untaken(), self._resumed
        cycle = self.cycle
        answered = cycle is None or cycle.response_complete
        if self._heads == self._requests:
            return ("sent a request", self._heads, 0) if answered else None
        if self.flow.read_paused or (cycle.waiting_for_100_continue and not answered):
            return None
        return "sent the rest of its request", self._received, 0

    def _untaken(self) -> int:
        """What the client's machine has not taken of the kernel's buffer, bytes: the transport's own does not shrink
        before a third of that is free."""
        try:
            found = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # not every system says it
            return 0
        return int(struct.unpack("=i", found)[0])
