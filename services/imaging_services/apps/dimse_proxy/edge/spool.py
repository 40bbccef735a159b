"""The proxy's side of the spool: takes instances while there is room, counts them, and watches how it stands."""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Protocol

import orjson
import structlog
from prometheus_client import Counter, Gauge

from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.domain.errors import ImagingError, OutOfResources, RetryableError
from imaging_services.domain.relay.messages import Call
from imaging_services.domain.relay.ports import RelayLink
from imaging_services.domain.relay.spool import SpoolGate, SpoolState

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
_SPOOLED = Counter("imaging_edge_spooled_instances", "Instances taken into the spool")
_SPOOLED_BYTES = Counter("imaging_edge_spooled_bytes", "Bytes of their data sets")
_REFUSED = Counter("imaging_edge_refused", "Instances answered A700H because the spool or its disk was full")
_INSTANCES = Gauge("imaging_edge_spool_instances", "Instances that wait in the spool")
_BYTES = Gauge("imaging_edge_spool_bytes", "Bytes that the spool holds")
_LIMIT = Gauge("imaging_edge_spool_limit_bytes", "Most bytes that the spool may hold")
_OLDEST = Gauge("imaging_edge_spool_oldest_seconds", "Age of the instance that has waited longest")
_OPEN = Gauge("imaging_edge_spool_open", "1 while instances are taken, 0 while the spool or its disk is full")
_FREE = Gauge("imaging_edge_disk_free_bytes", "Bytes free on the disk below the spool")
_CONNECTED = Gauge("imaging_edge_hub_connected", "1 while the leaf node connection to the hub is up")


class SpoolReader(Protocol):
    """Who tells what waits: ``adapters/nats/relay_spool.py``."""

    async def prepare(self) -> None:
        """Make the spool exist. Raises a RetryableError."""
        ...

    async def state(self) -> SpoolState:
        """As it stands. Raises a RetryableError."""
        ...


class Spool:
    """In front of a relay's link whose messages wait on this machine."""

    def __init__(self, link: RelayLink, directory: Path, limit: int, reserve: int, monitoring: str) -> None:
        """``monitoring`` is the base URL of the own NATS server's monitoring port."""
        self._link, self._directory, self._monitoring = link, directory, monitoring
        self._gate = SpoolGate(limit, reserve)
        self._was_open = True
        _LIMIT.set(limit)
        _OPEN.set(1)

    async def store(self, call: Call, data: AsyncIterable[bytes], *, urgent: bool = False) -> None:
        """As ``RelayLink.store_durably``; raises ``OutOfResources`` at once while there is no room."""
        counted = _Counted(data)
        try:
            self._gate.require_room()
            try:
                await self._link.store_durably(call, counted, urgent=urgent)
            except OutOfResources:
                self._gate.refused()
                raise
        except OutOfResources:
            _REFUSED.inc()
            raise
        finally:
            self._say()
        self._gate.took(counted.size)
        _SPOOLED.inc()
        _SPOOLED_BYTES.inc(counted.size)

    async def watch(self, reader: SpoolReader) -> None:
        """Look at the spool, the disk and the connection to the hub each second, until cancelled."""
        prepared = False
        async with HttpTarget(self._monitoring, HttpOptions(timeout_seconds=2, connect_seconds=2)) as server:
            while True:
                try:
                    if not prepared:
                        await reader.prepare()
                        prepared = True
                    await self._look(reader)
                except RetryableError as error:
                    log.debug("the spool does not say how it stands", error=str(error))
                    self._gate.look_at_disk(await self._free_bytes())
                    self._say()
                _CONNECTED.set(await _hub_connected(server))
                await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, reader: SpoolReader) -> None:
        taken = self._gate.taken
        state = await reader.state()
        self._gate.look(state.bytes, await self._free_bytes(), taken)
        _INSTANCES.set(state.instances)
        _BYTES.set(state.bytes)
        _OLDEST.set(state.oldest_seconds)
        self._say()

    async def _free_bytes(self) -> int:
        free = await asyncio.to_thread(_free_bytes, self._directory)
        _FREE.set(free)
        return free

    def _say(self) -> None:
        """Once each time that it is full, and that it has room again."""
        is_open = self._gate.is_open
        if is_open == self._was_open:
            return
        self._was_open = is_open
        _OPEN.set(is_open)
        try:
            self._gate.require_room()
            log.info("instances are taken again, the spool has room")
        except OutOfResources as full:
            log.warning("C-STORE is refused", reason=str(full))


class _Counted:
    def __init__(self, data: AsyncIterable[bytes]) -> None:
        self._data = data
        self.size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for block in self._data:
            self.size += len(block)
            yield block


def _free_bytes(directory: Path) -> int:
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


async def _hub_connected(server: HttpTarget) -> bool:
    try:
        answer = await server.request("GET", "/leafz")
        return bool(orjson.loads(answer.body).get("leafnodes"))
    except (ImagingError, ValueError):
        return False
