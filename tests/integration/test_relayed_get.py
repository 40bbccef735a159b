"""C-GET through a proxy: DCMTK and pynetdicom as requestors, the ingestion, dcmqrscp and Orthanc behind the relay."""

import asyncio
import os
import re
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import MRImageStorage, RLELossless, generate_uid

from imaging_services.adapters.dimse.contexts import choose_contexts, load_capabilities
from imaging_services.apps.dimse_ingestion.intake import Choose, RelayedHandler
from imaging_services.domain.dicom.dimse import DimseResponse
from support.dcmtk import ENVIRONMENT, dcmtk, written
from support.dimse_archive import TITLE, Archive, archive
from support.instances import instance, part10
from support.orthanc import Orthanc
from support.peers import dcmtk_program
from support.ports import a_free_port
from support.proxies import proxy
from support.relay import listening, nats_relay, relay_settings, until
from support.retrieve_scu import cancelled, got
from support.servers import Nats

STUDY, SERIES = generate_uid(), generate_uid()


@pytest.fixture
def root() -> str:
    return f"t{uuid.uuid4().hex}"


def study(count: int, **attributes: object) -> list[pydicom.Dataset]:
    attributes = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "PatientID": "P1"} | attributes
    return [instance(InstanceNumber=number, **attributes) for number in range(1, count + 1)]


@asynccontextmanager
async def ingestion(
    nats: Nats, root: str, folder: Path, *, transcoding: bool = False
) -> AsyncIterator[tuple[int, Archive, "Watched"]]:
    """The port of a proxy, the archive at the other end and its handler."""
    choose = partial(choose_contexts, capabilities=load_capabilities(None))
    async with (
        archive(folder, {}, transcoding=transcoding) as opened,
        nats_relay(relay_settings(nats.url, "B", root)) as relay,
    ):
        handler = Watched(opened, choose)
        async with listening(relay, handler), proxy(nats.url, root, "A") as port:
            yield port, opened, handler


async def getscu(port: int, folder: Path, *options: str) -> tuple[str, dict[str, pydicom.Dataset]]:
    """Output, and what was got, by SOP Instance UID."""
    folder.mkdir()
    code, output = await dcmtk(
        *("getscu", "-d", "-S", "-od", str(folder), *options, "-k", "QueryRetrieveLevel=STUDY"),
        *("-k", f"StudyInstanceUID={STUDY}", "127.0.0.1", str(port)),
        title="DIMSE",
    )
    assert code == 0, output
    return output, {one.SOPInstanceUID: one for one in map(pydicom.dcmread, folder.iterdir())}


async def test_getscu_from_the_ingestion(nats_server: Nats, root: str, tmp_path: Path) -> None:
    """As stored, uncompressed where it is not taken as stored, and one that is streamed."""
    compressed = pydicom.dcmread(get_testdata_file("MR_small_RLE.dcm"))
    compressed.StudyInstanceUID, compressed.SeriesInstanceUID = STUDY, generate_uid()
    compressed.preamble = None
    del compressed.file_meta
    large = instance(StudyInstanceUID=STUDY, Rows=2048, Columns=2048, PixelData=os.urandom(8 * 1024 * 1024))
    plain = [*study(3), large]
    async with ingestion(nats_server, root, tmp_path / "archive", transcoding=True) as (port, opened, _):
        await opened.keep(*plain)
        await opened.keep(compressed, syntax=RLELossless)
        output, received = await getscu(port, tmp_path / "got")
    expected = {one.SOPInstanceUID: one.PixelData for one in plain}
    assert {uid: one.PixelData for uid, one in received.items() if uid in expected} == expected, output
    assert not received[compressed.SOPInstanceUID].file_meta.TransferSyntaxUID.is_compressed
    assert len(received) == 5
    assert re.search(r"Completed Suboperations +: 5\b", output), output


async def test_what_a_requestor_refuses_or_does_not_take_is_counted(
    nats_server: Nats, root: str, tmp_path: Path
) -> None:
    instances = [*study(5), *study(2, SOPClassUID=MRImageStorage, SeriesInstanceUID=generate_uid())]
    async with ingestion(nats_server, root, tmp_path) as (port, opened, _):
        await opened.keep(*instances)
        answers = {1: 0xA700, 3: 0xB007}
        final, taken = await asyncio.to_thread(got, port, "DIMSE", STUDY, answers)
        nothing, _ = await asyncio.to_thread(got, port, "DIMSE", STUDY, takes=())
    counts = final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations
    assert (*counts, final.NumberOfWarningSuboperations, final.Status) == (3, 3, 1, 0xB000)
    assert len(taken) == 3
    assert (nothing.Status, nothing.NumberOfFailedSuboperations) == (0xA702, 7)


async def test_a_cancellation_ends_with_the_counts(nats_server: Nats, root: str, tmp_path: Path) -> None:
    async with ingestion(nats_server, root, tmp_path) as (port, opened, _):
        await opened.keep(*study(200))
        statuses, taken = await asyncio.to_thread(cancelled, port, "DIMSE", STUDY, "get")
    last = statuses[-1]
    assert last.Status == 0xFE00
    assert last.NumberOfRemainingSuboperations > 0
    assert last.NumberOfRemainingSuboperations + last.NumberOfCompletedSuboperations == 200
    assert len(taken) == last.NumberOfCompletedSuboperations


class Watched(RelayedHandler):
    """Says when a request has ended."""

    def __init__(self, opened: Archive, choose: Choose) -> None:
        super().__init__(opened.intake, opened.holds, choose)
        self.ended = asyncio.Event()

    async def serve(self, *asked: Any) -> AsyncIterator[DimseResponse]:
        async with aclosing(super().serve(*asked)) as responses:  # type: ignore[type-var]
            try:
                async for response in responses:
                    yield response
            finally:
                self.ended.set()


async def test_a_requestor_that_is_killed_ends_the_far_work(nats_server: Nats, root: str, tmp_path: Path) -> None:
    folder, fetched = tmp_path / "got", 0
    folder.mkdir()
    async with ingestion(nats_server, root, tmp_path / "archive") as (port, opened, handler):
        await opened.keep(*study(300))
        get = opened.space.get

        async def slow(*where: Any) -> bytes:
            nonlocal fetched
            fetched += 1
            await asyncio.sleep(0.1)
            return await get(*where)

        opened.space.get = slow  # type: ignore[method-assign]
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
        where = ["-aec", "DIMSE", "127.0.0.1", str(port)]
        process = subprocess.Popen([dcmtk_program("getscu"), "-S", "-od", folder, *keys, *where], env=ENVIRONMENT)
        try:
            await until(lambda: len(list(folder.iterdir())) > 3)
            assert not handler.ended.is_set()
        finally:
            process.kill()
            process.wait(10)
        await asyncio.wait_for(handler.ended.wait(), 60)  # the whole study would have taken half a minute at least
    assert fetched < 300


@asynccontextmanager
async def dcmqrscp(folder: Path) -> AsyncIterator[int]:
    """DCMTK's archive, called QR."""
    port, database = a_free_port(), folder / "database"
    database.mkdir(parents=True)
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQR {database} RW (200, 1024mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen([dcmtk_program("dcmqrscp"), "-c", str(configuration)], env=ENVIRONMENT)
    try:
        async with asyncio.timeout(60):
            while (await dcmtk("echoscu", "127.0.0.1", str(port), title="QR"))[0] != 0:
                await asyncio.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("mode", ["durable", "confirmed"])
async def test_getscu_from_dcmqrscp_behind_a_proxy(nats_server: Nats, root: str, tmp_path: Path, mode: str) -> None:
    instances = [*study(3), instance(StudyInstanceUID=STUDY, PixelData=os.urandom(5 * 1024 * 1024))]
    files = [str(written(tmp_path / f"{n}.dcm", one)) for n, one in enumerate(instances)]
    async with (
        dcmqrscp(tmp_path / "archive") as target,
        proxy(nats_server.url, root, "B", target, DIMSE_TARGET_AE="QR"),
        proxy(nats_server.url, root, "A", DIMSE_DELIVERY_MODE=mode) as port,
    ):
        code, output = await dcmtk("storescu", "127.0.0.1", str(target), *files, title="QR")
        assert code == 0, output
        output, received = await getscu(port, tmp_path / "got")
    assert {uid: one.PixelData for uid, one in received.items()} == {
        one.SOPInstanceUID: one.PixelData for one in instances
    }
    assert re.search(r"Completed Suboperations +: 4\b", output), output


async def test_orthanc_behind_a_proxy_and_a_requestor_that_refuses(
    nats_server: Nats, root: str, tmp_path: Path
) -> None:
    with Orthanc(tmp_path / "orthanc") as orthanc:
        async with (
            proxy(nats_server.url, root, "B", orthanc.dicom_port, DIMSE_TARGET_AE="ORTHANC"),
            proxy(nats_server.url, root, "A") as port,
        ):
            for one in study(4):
                await asyncio.to_thread(orthanc.post, "/instances", part10(one))
            _, received = await getscu(port, tmp_path / "got")
            final, taken = await asyncio.to_thread(got, port, "DIMSE", STUDY, {2: 0xA700})
    assert len(received) == 4
    assert len(taken) == 3
    assert final.Status != 0x0000
    assert final.NumberOfFailedSuboperations == 1


async def test_a_cancellation_goes_on_to_the_target(nats_server: Nats, root: str, tmp_path: Path) -> None:
    async with (
        archive(tmp_path, {}) as target,
        proxy(nats_server.url, root, "B", target.port, DIMSE_TARGET_AE=TITLE),
        proxy(nats_server.url, root, "A") as port,
    ):
        await target.keep(*study(200))
        statuses, taken = await asyncio.to_thread(cancelled, port, "DIMSE", STUDY, "get")
    last = statuses[-1]
    assert last.Status == 0xFE00
    assert last.NumberOfRemainingSuboperations + last.NumberOfCompletedSuboperations == 200
    assert len(taken) == last.NumberOfCompletedSuboperations < 200
