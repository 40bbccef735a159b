"""Listening for associations (PS3.8 section 9.2, acceptor side)."""

import asyncio
import socket
import ssl
from collections.abc import Callable

import structlog

from imaging_services.adapters.dimse.accepted import AcceptedAssociation
from imaging_services.adapters.dimse.connection import Connection
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.domain.dicom.dimse import AssociationHandler
from imaging_services.domain.errors import SettingsError

log = structlog.get_logger(__name__)

_BACKLOG = 256


class Listener:
    """An open port and its associations."""

    def __init__(self, handler: AssociationHandler, limits: AssociationLimits) -> None:
        self._handler = handler
        self._limits = limits
        self._associations: dict[AcceptedAssociation, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._closing = False
        self.port = 0
        """The port listened on, also when 0 was asked for."""

    @property
    def associations(self) -> int:
        """How many associations are established or being negotiated."""
        return sum(association.counts for association in self._associations)

    async def close(self, drain_seconds: float) -> None:
        """Stop accepting, let associations finish for at most ``drain_seconds``, then send A-ABORT.

        Returns when every handler has returned.
        """
        self._closing = True
        if self._server is not None:
            self._server.close()
        for association in list(self._associations):
            if not association.counts:
                association.connection.kill()
        tasks = list(self._associations.values())
        if tasks:
            await asyncio.wait(tasks, timeout=drain_seconds)
        left = list(self._associations.items())
        for association, task in left:
            log.warning("association aborted at shutdown", peer=association.connection.peer)
            association.shut_down()
            task.cancel()
        await asyncio.gather(*(task for _, task in left), return_exceptions=True)

    def admits(self) -> bool:
        """There is room for one more association."""
        return not self._closing and self.associations < self._limits.max_associations

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return AcceptedAssociation(self._handler, self._limits, self.admits, self._start).connection

    def _start(self, association: AcceptedAssociation) -> None:
        task = asyncio.get_running_loop().create_task(association.run())
        self._associations[association] = task
        task.add_done_callback(lambda _: self._associations.pop(association))

    async def start(self, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Accept connections on a bound socket."""
        factory: Callable[[], asyncio.BaseProtocol] = self.connection
        self.port = listening.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(
            factory, sock=listening, ssl=tls, backlog=_BACKLOG
        )


async def listen(
    handler: AssociationHandler,
    host: str,
    port: int,
    limits: AssociationLimits | None = None,
    *,
    reuse_port: bool = False,
    tls: ssl.SSLContext | None = None,
) -> Listener:
    """Accept associations on ``host:port`` (port 0: any free) and serve them with the handler.

    ``reuse_port`` lets several processes share the port. Raises ``SettingsError`` when it cannot be bound.
    """
    listener = Listener(handler, limits or AssociationLimits())
    await listener.start(_bind(host, port, reuse_port), tls)
    return listener


def _bind(host: str, port: int, reuse_port: bool) -> socket.socket:
    handle = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        handle.bind((host, port))
    except OSError as error:
        handle.close()
        raise SettingsError(f"cannot listen for DICOM on {host}:{port}: {error.strerror}") from error
    return handle
