"""The operator's program: ``python -m imaging_operator`` or ``imaging-operator``."""

import asyncio
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping
from typing import Any

import structlog
import uvloop
from pydantic import ValidationError

from imaging_operator.cluster import Cluster, connect
from imaging_operator.connection import Connection, load_connection
from imaging_operator.discovery import Discovery
from imaging_operator.errors import ReconcileError
from imaging_operator.events import EventRecorder
from imaging_operator.handlers import Watches, quiet_kopf
from imaging_operator.kinds import KINDS
from imaging_operator.kinds.common import Kind
from imaging_operator.leader import Leader, LeadLost
from imaging_operator.queue import WorkQueue
from imaging_operator.reconcile import Reconciler, customs_of
from imaging_operator.references import ReferenceIndex
from imaging_operator.settings import OperatorSettings
from imaging_operator.streams import JetStreamRemover
from imaging_operator.web import serve_web
from imaging_operator.work import Resync, Waker, Worker
from imaging_services.domain.errors import ImagingError
from imaging_services.runtime import configure_logging

log = structlog.get_logger("imaging_operator")

_SILENCE = 300.0
"""A leader that is so late with looking at its resources is stuck, seconds."""


class Operator:
    """One replica: it waits for the lead, then works until it is told to stop."""

    def __init__(
        self, cluster: Cluster, connection: Connection, settings: OperatorSettings, kinds: Mapping[str, Kind[Any]]
    ) -> None:
        identity = settings.POD_NAME or socket.gethostname()
        namespace = settings.POD_NAMESPACE or connection.namespace
        self._settings = settings
        self._queue = WorkQueue(settings.RETRY_SECONDS)
        self._index = ReferenceIndex()
        self._discovery = Discovery(cluster, customs_of(kinds))
        self._leader = Leader(cluster, namespace, settings.LEASE_NAME, identity, settings.LEASE_SECONDS)
        remover = JetStreamRemover(kinds, settings)
        recorder = EventRecorder(cluster, identity)
        reconciler = Reconciler(cluster, self._discovery, settings, kinds, self._index, recorder, remover)
        self._worker = Worker(self._queue, reconciler, self._leader.leads)
        self._resync = Resync(cluster, self._discovery, self._queue, settings.namespaces)
        waker = Waker(self._queue, self._index, kinds)
        self._watches = Watches(connection, settings, self._discovery, waker.saw, self._resync.soon)
        self._ready = asyncio.Event()

    def is_ready(self) -> bool:
        """True once the API server answered."""
        return self._ready.is_set()

    def is_alive(self) -> bool:
        """False when work stands still though this replica leads."""
        late = self._resync.seconds_since_look() - self._settings.RESYNC_SECONDS
        return not self._leader.leads.is_set() or late < _SILENCE

    async def run(self) -> None:
        """For ever. Raises ``LeadLost``."""
        await self._first_look()
        if not self._settings.LEADER_ELECTION:
            self._leader.lead_alone()
            await self._work()
            return
        try:
            await self._leader.acquire()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._leader.hold())
                tasks.create_task(self._work())
        finally:
            await self._leader.release()

    async def _first_look(self) -> None:
        while not self._ready.is_set():
            try:
                await self._discovery.look()
                self._ready.set()
            except ReconcileError as error:
                log.warning("waiting for the API server", error=str(error))
                await asyncio.sleep(self._settings.RETRY_SECONDS)

    async def _work(self) -> None:
        settings = self._settings
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._discovery.keep_looking(settings.DISCOVERY_SECONDS))
            tasks.create_task(self._watches.run())
            tasks.create_task(self._resync.run(settings.RESYNC_SECONDS, settings.RETRY_SECONDS))
            for _ in range(settings.WORKERS):
                tasks.create_task(self._worker.run())


async def operate(
    connection: Connection, settings: OperatorSettings, kinds: Mapping[str, Kind[Any]], stop: asyncio.Event
) -> None:
    """Run one replica until ``stop`` is set. Raises ``LeadLost``, or ``SettingsError`` for a port in use."""
    async with connect(connection, settings.API_TIMEOUT_SECONDS) as cluster:
        operator = Operator(cluster, connection, settings, kinds)
        async with asyncio.TaskGroup() as tasks:
            web = tasks.create_task(serve_web(settings, operator.is_alive, operator.is_ready, stop))
            await _until(stop, operator.run())
            stop.set()
            await web


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """``work`` until it ends, or until ``stop`` is set."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.wait([working])


def main() -> None:
    """Run until SIGTERM; exit code 1 for wrong settings and when another replica took the lead."""
    try:
        settings = OperatorSettings()
        connection = load_connection()
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        sys.exit("wrong settings, set these variables: " + "; ".join(lines))
    except ReconcileError as error:
        sys.exit(str(error))
    configure_logging(settings.LOG_LEVEL, settings.LOG_FORMAT)
    quiet_kopf()
    log.info("starting", namespaces=settings.namespaces or "all", server=connection.server)
    try:
        uvloop.run(_main(connection, settings))
    except BaseExceptionGroup as group:
        _exit(group)
    log.info("stopped")


async def _main(connection: Connection, settings: OperatorSettings) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    await operate(connection, settings, KINDS, stop)


def _exit(group: BaseExceptionGroup[BaseException]) -> None:
    """In one sentence what is no bug."""
    expected, rest = group.split((LeadLost, ImagingError))
    if rest or not expected:
        raise group
    error: BaseException = expected
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    log.error("ended", error=str(error))
    sys.exit(1)


if __name__ == "__main__":
    main()
