"""kopf: watches of everything whose changes matter. Each event only says which object it is about.

kopf runs in a thread and an event loop of its own: when it ends it cancels every task of its loop, and it ends when a
watched kind disappears or an API server answers with an error for too long. It is begun anew then, and also when
kinds appear, so that it never has to watch CustomResourceDefinitions, which only a cluster-wide right allows.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
import structlog

from imaging_operator.builders.names import MANAGED_BY
from imaging_operator.connection import Connection
from imaging_operator.discovery import Discovery
from imaging_operator.metrics import EVENTS_SEEN, WATCH_RESTARTS
from imaging_operator.resources import CONFIG_MAP, OWNED, SECRET, Json, Resource
from imaging_operator.settings import OperatorSettings

log = structlog.get_logger(__name__)

Saw = Callable[[Json, bool], None]
"""(kind and metadata of the object, whether it is gone)."""
_WATCH_SECONDS = 50
"""Every watch is asked for anew after this time: one that hangs is noticed within a minute."""
_LOGIN_MINUTES = 10
_STOP_SECONDS = 20
_LONGEST_PAUSE = 15.0
_UNINTERESTING_SECRETS = "type!=helm.sh/release.v1"
"""Nobody refers to them, and Helm writes them again and again. Any other type may hold what a resource names."""


class Watches:
    """Watches that are begun again whatever happens to them; ``restarting`` is told each time, since what served kinds
    mean for a resource, and what happened in between, is in no event."""

    def __init__(
        self,
        connection: Connection,
        settings: OperatorSettings,
        discovery: Discovery,
        saw: Saw,
        restarting: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._discovery = discovery
        self._saw = saw
        self._restarting = restarting

    async def run(self) -> None:
        """For ever."""
        pause = 1.0
        while True:
            self._discovery.changed.clear()
            self._restarting()
            thread = _Kopf(self._connection, self._settings, self._discovery.watched, self._saw)
            began = asyncio.get_running_loop().time()
            why = await self._until_over(thread)
            WATCH_RESTARTS.labels(why).inc()
            if why == "ended":
                pause = 1.0 if asyncio.get_running_loop().time() - began > 60 else min(pause * 2, _LONGEST_PAUSE)
                log.warning("watches ended, beginning anew", error=thread.error, seconds=pause)
                await asyncio.sleep(pause)

    async def _until_over(self, thread: "_Kopf") -> str:
        """Until kopf ends or other kinds have to be watched; says which."""
        changed = asyncio.create_task(self._discovery.changed.wait())
        thread.start()
        try:
            either: list[asyncio.Future[Any]] = [changed, thread.ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return "ended" if thread.ended.done() else "kinds"
        finally:
            changed.cancel()
            await thread.stop()


class _Kopf:
    """One run of kopf."""

    def __init__(
        self, connection: Connection, settings: OperatorSettings, resources: Sequence[Resource], saw: Saw
    ) -> None:
        self._main = asyncio.get_running_loop()
        self._settings = settings
        self._saw = saw
        self._registry = _registry(connection, resources, self._on_event)
        self._kopf_settings = _kopf_settings(settings, resources)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self.ended: asyncio.Future[None] = self._main.create_future()
        self.error = ""

    def start(self) -> None:
        """Begin watching."""
        self._thread.start()

    async def stop(self) -> None:
        """End it, and wait until it has ended; a thread that does not end is left behind, it does no harm."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        _, pending = await asyncio.wait([self.ended], timeout=_STOP_SECONDS)
        if pending:
            log.error("watches do not end")

    def _run(self) -> None:
        try:
            asyncio.run(self._operate())
        except BaseException as error:  # noqa: BLE001 - the main thread says so and begins anew
            self.error = f"{type(error).__name__}: {error}"
        with contextlib.suppress(RuntimeError):  # the main loop is closed
            self._main.call_soon_threadsafe(self._set_ended)

    async def _operate(self) -> None:
        self._loop = asyncio.get_running_loop()
        namespaces = self._settings.namespaces
        await kopf.operator(
            registry=self._registry,
            settings=self._kopf_settings,
            standalone=True,
            namespaces=namespaces,
            clusterwide=not namespaces,
            stop_flag=self._stop,
        )

    async def _on_event(self, event: Any, resource: Any, **_: Any) -> None:
        metadata = dict(event["object"]["metadata"])
        EVENTS_SEEN.labels(resource.plural).inc()
        document = {
            "apiVersion": f"{resource.group}/{resource.version}" if resource.group else resource.version,
            "kind": resource.kind,
            "metadata": metadata,
        }
        with contextlib.suppress(RuntimeError):  # the main loop is closed
            self._main.call_soon_threadsafe(self._saw, document, event["type"] == "DELETED")

    def _set_ended(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def quiet_kopf() -> None:
    """What kopf logs of itself, below errors, is of no use to others; some of it would show objects."""
    for name in ("kopf.objects", "kopf.activities", "kopf._cogs.clients.watching", "kopf._core.reactor.running"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _registry(connection: Connection, resources: Sequence[Resource], on_event: Any) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.ConnectionInfo:
        return _credentials(connection)

    kopf.on.login(registry=registry, id="login")(login)
    for each in resources:
        name = f"{each.plural}.{each.group}"
        kopf.on.event(each.group, each.version, each.plural, registry=registry, id=name)(on_event)
    return registry


def _kopf_settings(settings: OperatorSettings, resources: Sequence[Resource]) -> kopf.OperatorSettings:
    wanted = kopf.OperatorSettings()
    wanted.process.ultimate_exiting_timeout = None
    wanted.posting.enabled = False
    wanted.scanning.disabled = True
    wanted.watching.server_timeout = _WATCH_SECONDS
    wanted.watching.client_timeout = _WATCH_SECONDS + 5
    wanted.watching.connect_timeout = min(5.0, settings.API_TIMEOUT_SECONDS)
    wanted.networking.connect_timeout = min(5.0, settings.API_TIMEOUT_SECONDS)
    wanted.networking.request_timeout = settings.API_TIMEOUT_SECONDS
    wanted.networking.error_backoffs = (1, 1, 2, 3, 5)
    for each in resources:
        if each == SECRET:
            wanted.watching.field_selectors[each.group, each.version, each.plural] = _UNINTERESTING_SECRETS
        elif each != CONFIG_MAP and each in OWNED:
            label = f"app.kubernetes.io/managed-by={MANAGED_BY}"
            wanted.watching.label_selectors[each.group, each.version, each.plural] = label
    return wanted


def _credentials(connection: Connection) -> kopf.ConnectionInfo:
    expires = datetime.now(UTC) + timedelta(minutes=_LOGIN_MINUTES) if connection.token_file else None
    return kopf.ConnectionInfo(
        server=connection.server,
        ca_data=connection.authorities,
        insecure=connection.insecure,
        certificate_data=connection.certificate,
        private_key_data=connection.key,
        token=connection.current_token(),
        username=connection.user,
        password=connection.password,
        default_namespace=connection.namespace,
        expiration=expires,
    )
