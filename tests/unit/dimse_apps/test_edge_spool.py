"""What the proxy of an edge does with its spool."""

import asyncio
from pathlib import Path

import pytest

from imaging_services.apps.dimse_proxy.edge import spool as spool_module
from imaging_services.apps.dimse_proxy.edge.spool import Spool
from imaging_services.domain.errors import BackendUnavailable, OutOfResources
from imaging_services.domain.relay.spool import SpoolState
from support.relay import blocks, call, until

MORE_THAN_ANY_DISK = 1 << 60


class Silent:
    """The JetStream of a full disk."""

    looks = 0

    async def prepare(self) -> None:
        pass

    async def state(self) -> SpoolState:
        self.looks += 1
        raise BackendUnavailable("JetStream does not answer")


class Taking:
    """A link that keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    async def store_durably(self, call, data, *, urgent=False) -> None:
        self.kept.append(b"".join([block async for block in data]))


@pytest.mark.parametrize(("reserve", "taken"), [(MORE_THAN_ANY_DISK, 1), (0, 2)])
async def test_a_full_disk_is_told_at_once_when_it_has_silenced_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserve: int, taken: int
) -> None:
    monkeypatch.setattr(spool_module, "_LOOK_SECONDS", 0.05)
    link, reader = Taking(), Silent()
    spool = Spool(link, tmp_path, MORE_THAN_ANY_DISK, reserve, "http://127.0.0.1:1")
    await spool.store(call(), blocks(b"before anybody looked"))
    watching = asyncio.create_task(spool.watch(reader))
    try:
        await until(lambda: reader.looks == 2)
        if reserve:
            with pytest.raises(OutOfResources, match="the disk below the spool is full"):
                await spool.store(call(), blocks(b"no room"))
        else:
            await spool.store(call(), blocks(b"the server may be back"))
    finally:
        watching.cancel()
    assert len(link.kept) == taken
