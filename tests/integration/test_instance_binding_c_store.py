"""The instance binding against C-STORE targets: DCMTK, and one that answers what a test wants."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pydicom
import pytest

from imaging_services.adapters.dimse.pool import AssociationPool
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.memory.event_log import MemoryEventLog
from imaging_services.apps.instance_binding.c_store import CStoreTarget
from imaging_services.apps.instance_binding.deliver import DeliverInstance
from imaging_services.domain.errors import (
    BackendUnavailable,
    OutOfResources,
    Refused,
)
from support.events import consuming, eventually, letters, letters_arrive
from support.forwarding import CT, FILES, SEVERAL, copy_of, forwarding
from support.storescp import ScriptedScp, storescp
from support.wado_source import WadoSource


@asynccontextmanager
async def to_ae(
    folder: Path, port: int, *, associations: int = 2, called: str = "STORESCP"
) -> AsyncIterator[DeliverInstance]:
    limits = AssociationLimits(dimse_timeout_seconds=10)
    pool = AssociationPool(RemoteAE("127.0.0.1", port, limits), "STORESCU", called, max_associations=associations)
    try:
        async with forwarding(folder, CStoreTarget(pool)) as deliver:
            yield deliver
    finally:
        await pool.close()


async def test_c_store_to_dcmtk_keeps_the_bytes(tmp_path: Path) -> None:
    log = MemoryEventLog(max_tries=2)
    received = tmp_path / "received"
    with storescp(received, "--accept-all") as port, WadoSource(*SEVERAL) as source:
        async with to_ae(tmp_path / "spool", port) as deliver, consuming(log, "ae", deliver):
            await log.append([source.event(file) for file in SEVERAL])
            await eventually(lambda: len(list(received.iterdir())) == len(SEVERAL))
        assert await letters(log) == []
    contents = [path.read_bytes() for path in received.iterdir()]
    assert sorted(map(_part10_data_set, contents)) == sorted(file.data_set for file in SEVERAL)


def _part10_data_set(content: bytes) -> bytes:
    file = io.BytesIO(content)
    pydicom.filereader.read_preamble(file, force=False)
    pydicom.filereader._read_file_meta_info(file)
    return file.read()


async def test_a_peer_that_does_not_take_the_transfer_syntax(tmp_path: Path) -> None:
    log = MemoryEventLog()
    jpeg = FILES["SC_rgb_jpeg_dcmtk.dcm"]
    with storescp(tmp_path / "received") as port, WadoSource(CT, jpeg) as source:
        async with to_ae(tmp_path / "spool", port) as deliver, consuming(log, "ae", deliver):
            await log.append([source.event(jpeg), source.event(CT)])
            (letter,) = await letters_arrive(log, 1)
            await eventually(lambda: len(list((tmp_path / "received").iterdir())) == 1)
    assert letter.attempts == 1
    assert jpeg.transfer_syntax_uid in letter.reason
    assert jpeg.sop_class_uid in letter.reason


async def test_associations_are_pooled_and_several_in_flight(tmp_path: Path) -> None:
    files = [copy_of(CT, number) for number in range(20)]
    log = MemoryEventLog()
    with ScriptedScp(delay=0.05) as scp, WadoSource(*files) as source:
        async with to_ae(tmp_path / "spool", scp.port, called="PACS") as deliver, consuming(log, "ae", deliver):
            await log.append([source.event(file) for file in files])
            await eventually(lambda: len(scp.stored) == 20)
        assert scp.associations == scp.most_at_once == 2
        assert set(scp.calling) == {"STORESCU"}
        assert set(scp.called) == {"PACS"}


async def test_c_store_statuses(tmp_path: Path) -> None:
    log = MemoryEventLog(retry_delays=(0.01,))
    files = [copy_of(CT, number) for number in range(3)]
    with ScriptedScp() as scp, WadoSource(*files) as source:
        async with to_ae(tmp_path / "spool", scp.port) as deliver, consuming(log, "ae", deliver):
            scp.script = [0xA700, 0xA702]
            await log.append([source.event(files[0])])
            await eventually(lambda: scp.stored == [files[0].sop_instance_uid])
            scp.script = [0xB007]
            await log.append([source.event(files[1])])
            await eventually(lambda: not scp.script)
            scp.script = [0xC001]
            await log.append([source.event(files[2])])
            (letter,) = await letters_arrive(log, 1)
        assert letter.attempts == 1
        assert "C001H" in letter.reason
        assert scp.associations == 1


async def test_an_ae_that_rejects_or_is_not_there(tmp_path: Path) -> None:
    with WadoSource(CT) as source:
        with ScriptedScp() as scp:
            scp._ae.require_called_aet = True
            async with to_ae(tmp_path / "spool", scp.port, called="OTHER") as deliver:
                with pytest.raises(Refused, match="rejected"):
                    await deliver(source.event(CT))
            scp._ae.require_called_aet = False
            scp.reject_for_now = True
            async with to_ae(tmp_path / "spool", scp.port) as deliver:
                with pytest.raises(OutOfResources):
                    await deliver(source.event(CT))
        async with to_ae(tmp_path / "spool", scp.port) as deliver:
            with pytest.raises(BackendUnavailable):
                await deliver(source.event(CT))


async def test_an_association_that_breaks_is_replaced(tmp_path: Path) -> None:
    with WadoSource(CT) as source, ScriptedScp() as scp:
        async with to_ae(tmp_path / "spool", scp.port) as deliver:
            await deliver(source.event(CT))
            for association in scp._server.active_associations:
                await asyncio.to_thread(association.abort)
            await deliver(source.event(CT))
        assert scp.associations == 2
