"""The hospital's side as one program: the leaf node's NATS server, and the proxy in front of it."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence

import structlog

from imaging_services import runtime
from imaging_services.apps.dimse_proxy.settings import Settings
from imaging_services.domain.errors import SettingsError
from imaging_services.local.leaf_node import LeafNode
from imaging_services.local.ports import LOOPBACK, accepts, is_free
from imaging_services.local.processes import Program
from imaging_services.local.readiness import http_status
from imaging_services.local.supervisor import Stage, Supervisor
from imaging_services.runtime import Lifecycle

log = structlog.get_logger(__name__)

_PREDECESSOR_SECONDS = 30.0
_LOOK_SECONDS = 5.0
_ILL_LOOKS = 3


def run(settings: Settings) -> None:
    """Run an edge until SIGTERM or SIGINT. The proxy answers on the health port, not this process."""
    stopping = 2 * settings.DRAIN_SECONDS + 30
    outer = settings.model_copy(update={"HEALTH_PORT": 0, "DRAIN_SECONDS": stopping})
    runtime.run(lambda _, lifecycle: run_edge(settings, lifecycle), outer)


async def run_edge(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run both until told to stop: the server first, then the proxy; each is started again when it dies. Stopped the
    other way round, so that what the proxy takes last is kept.

    Raises ``SettingsError``, or ``BackendUnavailable`` when one of them does not start.
    """
    check(settings)
    node = LeafNode(settings)
    supervisor = Supervisor(
        [Stage(lambda: _server(node)), Stage(lambda: [_proxy(settings, node)])],
        lambda pids: log.debug("edge processes", **pids),
        lambda text: log.warning("edge", report=text),
    )

    async def ready() -> None:
        log.info("edge runs", domain=settings.EDGE_DOMAIN, hub=settings.EDGE_HUB_URL, spool=str(node.directory))
        lifecycle.ready.set()
        await _watch(node, supervisor)

    await supervisor.run(ready, lifecycle.stop)


def check(settings: Settings) -> None:
    """Raise ``SettingsError`` for what an edge cannot work with."""
    if settings.DIMSE_NATS_URL:
        raise SettingsError("DIMSE_NATS_URL is set, but an edge has a NATS server of its own: leave it out")
    if settings.DIMSE_STREAM_MAX_BYTES:
        raise SettingsError("DIMSE_STREAM_MAX_BYTES is set, but EDGE_SPOOL_BYTES limits an edge: leave it out")
    if not settings.DIMSE_PORT:
        raise SettingsError("DIMSE_PORT is 0: name the port that the modalities send to")
    if settings.DIMSE_TARGET_HOST and not settings.EDGE_HUB_DOMAIN:
        raise SettingsError("EDGE_HUB_DOMAIN is not set: what goes to DIMSE_TARGET_HOST waits in the hub's domain")
    with contextlib.suppress(OSError):
        settings.EDGE_SPOOL_DIR.mkdir(parents=True, exist_ok=True)
    settings.check()


def _server(node: LeafNode) -> Sequence[Program]:
    """The NATS server, once one of a killed predecessor has gone: two on the same files would damage them."""
    deadline = time.monotonic() + _PREDECESSOR_SECONDS
    while not is_free(node.settings.EDGE_NATS_PORT):
        if time.monotonic() > deadline:
            raise SettingsError(f"EDGE_NATS_PORT {node.settings.EDGE_NATS_PORT} is taken by another program")
        time.sleep(0.2)
    return [node.program()]


def _proxy(settings: Settings, node: LeafNode) -> Program:
    environment = {
        "EDGE": "false",
        "EDGE_SPOOL_DIR": str(node.directory),
        "DIMSE_NATS_URL": node.url,
        "DIMSE_NATS_TLS_ENABLED": "false",
        "DIMSE_NATS_AUTH_TOKEN": "",
        "DIMSE_NATS_SEND_DOMAIN": settings.domain(),
        "DIMSE_NATS_RECEIVE_DOMAIN": settings.EDGE_HUB_DOMAIN or "",
    }
    # Which address the acceptor has, only it knows; loopback belongs to all of them, or a health port says it.
    health, port = settings.HEALTH_PORT, settings.DIMSE_PORT
    return Program(
        name="dimse-proxy",
        command=[sys.executable, "-P", "-m", "imaging_services.cli", "run", "dimse-proxy"],
        log_file=None,
        ready=lambda: http_status(health, "/readyz") == 200 if health else accepts(port, _reached(settings.DIMSE_HOST)),
        environment=environment,
        stop_seconds=settings.DRAIN_SECONDS + 5,
    )


def _reached(host: str) -> str:
    return LOOPBACK if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - all addresses, so loopback, too


async def _watch(node: LeafNode, supervisor: Supervisor) -> None:
    """JetStream, or a stream that met a full disk, takes nothing until the server is started again, which helps once
    there is room."""
    watch = ServerWatch(supervisor.pids.get("nats"))
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        pid = supervisor.pids.get("nats")
        answers, has_room = await asyncio.to_thread(node.stores), await asyncio.to_thread(node.has_room)
        ill = watch.is_ill(pid, answers=answers, has_room=has_room)
        if ill and pid is not None and pid == supervisor.pids.get("nats"):
            log.warning("the NATS server stores nothing any more, it is started again", pid=pid)
            os.kill(pid, signal.SIGTERM)


class ServerWatch:
    """Tells a server that has lost its JetStream from one that still reads its spool, which takes minutes when it is
    large: only the former has answered before. ``ready`` is the process that has answered when the watch begins."""

    def __init__(self, ready: int | None) -> None:
        self._pid, self._has_answered, self._ill = ready, True, 0

    def is_ill(self, pid: int | None, *, answers: bool, has_room: bool) -> bool:
        """One look at process ``pid``: whether it has to be started again. On a full disk that would not help."""
        if pid != self._pid:
            self._pid, self._has_answered, self._ill = pid, False, 0
        self._has_answered = self._has_answered or answers
        well = answers or not has_room or not self._has_answered
        self._ill = 0 if well else self._ill + 1
        if self._ill < _ILL_LOOKS:
            return False
        self._ill = 0
        return True
