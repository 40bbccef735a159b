"""pynetdicom forgets to close a socket whose peer was faster: here each is closed all the same."""

import socket

from pynetdicom import evt
from pynetdicom.events import Event, EventHandlerType


class OpenSockets:
    """Add ``handler`` to the handlers of an association or server, and ``close`` when they are over."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self.handler: EventHandlerType = (evt.EVT_CONN_OPEN, self._opened)

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def _opened(self, event: Event) -> None:
        transport = event.assoc.dul.socket
        if transport is not None and transport.socket is not None:
            self._sockets.append(transport.socket)
