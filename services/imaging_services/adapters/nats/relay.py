"""The DIMSE relay over NATS: one connection, speaking to the other channel and hearing the own one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from nats.aio.client import Client

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.relay_domains import Domains, announce_domain
from imaging_services.adapters.nats.relay_link import NatsRelayLink
from imaging_services.adapters.nats.relay_responder import Responder
from imaging_services.adapters.nats.relay_settings import RelaySettings
from imaging_services.domain.errors import BackendUnavailable, RetryableError
from imaging_services.domain.relay.ports import RelayHandler

log = structlog.get_logger(__name__)


class NatsRelay(NatsRelayLink):
    """Both ``RelayLink`` and ``RelayListener``. Made by ``open_relay``."""

    def __init__(self, settings: RelaySettings) -> None:
        super().__init__(settings, self._connected)
        self._connection: asyncio.Future[Client] = asyncio.get_running_loop().create_future()

    async def listen(self, handler: RelayHandler, serving: asyncio.Event | None = None) -> None:
        """Serve the own channel until cancelled, from the moment NATS is there; ``serving`` is set then. Raises
        ``SettingsError``."""
        client = await self.first_client()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Domains(client, self._settings, handler).run())
            responder = Responder(client, self._settings, handler)
            tasks.create_task(self._respond(responder))
            await responder.subscribed.wait()
            if serving is not None:
                serving.set()

    async def wait_connected(self, seconds: float) -> bool:
        """Wait for NATS, at most so long; True when it is there. Raises ``SettingsError``."""
        await asyncio.wait({self._connection}, timeout=seconds)
        if self._connection.done():
            self._connection.result()
        return self.connected

    def client(self) -> Client:
        """The connection, for whoever shares it. Raises ``BackendUnavailable`` while there is none."""
        return self._connected()

    async def first_client(self) -> Client:
        """The connection, once NATS is there. Raises ``SettingsError``."""
        return await asyncio.shield(self._connection)

    @property
    def connected(self) -> bool:
        """NATS is there at this moment."""
        connection = self._connection
        return connection.done() and not connection.cancelled() and connection.result().is_connected

    async def hold_connection(self) -> None:
        """Connect and stay connected until cancelled."""
        try:
            async with connect(self._settings.nats) as client:
                self._connection.set_result(client)
                log.info("relay connected", sends_to=self._subjects.channel, root=self._subjects.root)
                await announce_domain(client, self._settings)
                await asyncio.Event().wait()
        except Exception as error:
            if self._connection.done():
                raise
            self._connection.set_exception(error)

    def _connected(self) -> Client:
        if not self._connection.done():
            raise BackendUnavailable("NATS has not been reached yet")
        client = self._connection.result()
        if not client.is_connected:
            raise BackendUnavailable("the connection to NATS is lost")
        return client

    async def _respond(self, responder: Responder) -> None:
        while True:
            try:
                await responder.run()
            except* RetryableError as group:
                log.warning("relay responder interrupted", errors=[str(error) for error in group.exceptions])
            await asyncio.sleep(1)


@asynccontextmanager
async def open_relay(settings: RelaySettings) -> AsyncIterator[NatsRelay]:
    """A relay that connects in the background: while NATS is away, its calls raise ``BackendUnavailable``."""
    relay = NatsRelay(settings)
    holding = asyncio.create_task(relay.hold_connection())
    try:
        yield relay
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
