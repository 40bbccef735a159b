"""Listening for associations (PS3.8 section 9.2, acceptor side)."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable

import structlog

from imaging_services.adapters.dimse.accepted import AcceptedAssociation
from imaging_services.adapters.dimse.connection import Connection
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.tls import LOOK_SECONDS, TLS_END_SECONDS, TlsContext
from imaging_services.adapters.dimse.users import Users
from imaging_services.domain.dicom.dimse import AssociationHandler
from imaging_services.domain.errors import SettingsError

log = structlog.get_logger(__name__)

IDLE_SECONDS = 5.0
"""At shutdown an association without a request for so long is ended; between two C-STOREs it takes less."""
_LOOK_SECONDS = 0.25
_BACKLOG = 256


class Listener:
    """An open port and its associations."""

    def __init__(self, handler: AssociationHandler, limits: AssociationLimits, users: Users | None = None) -> None:
        self._handler = handler
        self._limits = limits
        self._users = users
        self._associations: dict[AcceptedAssociation, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._listening: socket.socket | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._closing = False
        self.port = 0
        """The port listened on, also when 0 was asked for."""

    @property
    def associations(self) -> int:
        """How many associations are established or being negotiated."""
        return sum(association.counts for association in self._associations)

    async def close(self, drain_seconds: float, idle_seconds: float = IDLE_SECONDS) -> None:
        """Stop accepting, let associations finish for at most ``drain_seconds``, then send A-ABORT.

        One over which nothing has been asked for ``idle_seconds`` gets it at once: its peer may keep it open for
        hours, and opens another for what it sends next. Returns when every handler has returned.
        """
        self._closing = True
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        if self._listening is not None:
            self._listening.close()
        for association in list(self._associations):
            if not association.counts:
                association.connection.kill()
        await self._drain(drain_seconds, idle_seconds)
        left = list(self._associations.items())
        for association, task in left:
            log.warning("association aborted at shutdown", peer=association.connection.peer)
            association.shut_down()
            task.cancel()
        await asyncio.gather(*(task for _, task in left), return_exceptions=True)

    async def _drain(self, drain_seconds: float, idle_seconds: float) -> None:
        end = time.monotonic() + drain_seconds
        while self._associations and (left := end - time.monotonic()) > 0:
            await asyncio.wait(set(self._associations.values()), timeout=min(left, _LOOK_SECONDS))
            for association in list(self._associations):
                if association.idle_seconds > idle_seconds:
                    log.info("idle association aborted at shutdown", peer=association.connection.peer)
                    association.shut_down()

    def admits(self) -> bool:
        """There is room for one more association."""
        return not self._closing and self.associations < self._limits.max_associations

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return AcceptedAssociation(self._handler, self._limits, self.admits, self._start, self._users).connection

    def _start(self, association: AcceptedAssociation) -> None:
        task = asyncio.get_running_loop().create_task(association.run())
        self._associations[association] = task
        task.add_done_callback(lambda _: self._associations.pop(association))

    async def start(self, listening: socket.socket, tls: TlsContext | None, look_seconds: float) -> None:
        """Accept connections on a bound socket; the files of TLS are looked at every ``look_seconds``."""
        self._listening = listening
        self.port = listening.getsockname()[1]
        context = await tls.current() if tls is not None else None
        await self._accept(context)
        if tls is not None and context is not None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew(tls, context, look_seconds))

    async def _renew(self, tls: TlsContext, context: ssl.SSLContext, look_seconds: float) -> None:
        """Accept with a new context once there is one. The socket stays, so no connection is refused meanwhile, and
        associations go on as they are."""
        while True:
            await asyncio.sleep(look_seconds)
            if (renewed := await tls.current()) is not context:
                await self._accept(renewed)
                context = renewed

    async def _accept(self, tls: ssl.SSLContext | None) -> None:
        assert self._listening is not None
        factory: Callable[[], asyncio.BaseProtocol] = self.connection
        former, seconds = self._server, self._limits.artim_timeout_seconds
        self._server = await asyncio.get_running_loop().create_server(
            factory,
            sock=self._listening.dup(),
            ssl=tls,
            backlog=_BACKLOG,
            ssl_handshake_timeout=seconds if tls else None,
            ssl_shutdown_timeout=TLS_END_SECONDS if tls else None,
        )
        if former is not None:
            former.close()


async def listen(
    handler: AssociationHandler,
    host: str,
    port: int,
    limits: AssociationLimits | None = None,
    *,
    reuse_port: bool = False,
    tls: TlsContext | None = None,
    tls_look_seconds: float = LOOK_SECONDS,
    users: Users | None = None,
) -> Listener:
    """Accept associations on ``host:port`` (port 0: any free) and serve them with the handler.

    ``reuse_port`` lets several processes share the port; with ``users`` every requestor has to identify itself as one
    of them. Raises ``SettingsError`` when it cannot be bound.
    """
    listener = Listener(handler, limits or AssociationLimits(), users)
    await listener.start(_bind(host, port, reuse_port), tls, tls_look_seconds)
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
