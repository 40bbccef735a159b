"""Other implementations as peers, in both roles: DCMTK's programs and pynetdicom."""

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pynetdicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import dcmread
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt

from imaging_services.adapters.dimse.acceptor import Listener, listen
from imaging_services.adapters.dimse.contexts import choose_contexts, load_capabilities, propose
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.scu import association, echo, find
from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.dicom.dimse import VERIFICATION, AssociationRequest, Negotiated, Rejection
from imaging_services.domain.errors import Refused
from support.dimse import CT, EXPLICIT, IMPLICIT, MR, STUDY_ROOT_FIND, Recorder, eventually
from support.peers import dcmtk_program
from support.ports import a_free_port

NO_DELAY = {**os.environ, "TCP_NODELAY": "1"}
CAPABILITIES = load_capabilities(None, query_classes=[STUDY_ROOT_FIND])
AE_TITLES = {"calling_ae_title": "IMAGING", "called_ae_title": "PEER"}

DEFLATED = "1.2.840.10008.1.2.1.99"


def instance(folder: Path, number: int = 1, size: int = 512) -> Path:
    """A CT image as a Part 10 file."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CT, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.PatientName, data.PatientID, data.Modality, data.InstanceNumber = "Test^Peer", "P1", "CT", number
    data.Rows = data.Columns = size
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = os.urandom(size * size * 2)
    path = folder / f"{number}.dcm"
    data.save_as(path, enforce_file_format=True)
    return path


def data_set_of(path: Path) -> bytes:
    """What follows the file meta information."""
    with path.open("rb") as file:
        file.seek(132)  # then (0002,0000), whose value is the length of the rest of the group
        file.seek(int.from_bytes(file.read(12)[8:], "little"), os.SEEK_CUR)
        return file.read()


async def dcmtk(program: str, *arguments: str) -> tuple[int, str]:
    """Run a DCMTK program; exit code and output."""
    process = await asyncio.create_subprocess_exec(
        dcmtk_program(program),
        *arguments,
        env=NO_DELAY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")


@pytest.fixture
def handler() -> Recorder:
    def accept(request: AssociationRequest) -> Negotiated | Rejection:
        return choose_contexts(request.contexts, CAPABILITIES)

    return Recorder(accept=accept)


@pytest.fixture
async def listener(handler: Recorder) -> AsyncIterator[Listener]:
    listener = await listen(handler, "127.0.0.1", 0)
    yield listener
    await listener.close(2)


# peers that call us


async def test_dcmtk_echoes_stores_and_finds(handler: Recorder, listener: Listener, tmp_path: Path) -> None:
    where = ("127.0.0.1", str(listener.port))
    assert (await dcmtk("echoscu", *where))[0] == 0
    paths = [instance(tmp_path, number) for number in range(3)]
    code, output = await dcmtk("storescu", "-aet", "MODALITY", "-aec", "ARCHIVE", *where, *map(str, paths))
    assert (code, output) == (0, "")
    assert [len(data) for _, data in handler.stored] == [len(data_set_of(path)) for path in paths]
    assert handler.requests[1].calling_ae_title == "MODALITY"
    assert handler.requests[1].called_ae_title == "ARCHIVE"
    handler.matches = [bytes.fromhex("0800520006000000") + b"STUDY "]
    code, output = await dcmtk("findscu", "-v", "-S", "-k", "QueryRetrieveLevel=STUDY", *where)
    assert code == 0
    assert "STUDY" in output
    await eventually(lambda: handler.ends == [True, True, True])


async def test_dcmtk_sees_statuses_and_rejections(handler: Recorder, listener: Listener, tmp_path: Path) -> None:
    path, where = str(instance(tmp_path)), ("127.0.0.1", str(listener.port))
    handler.error = ValueError("unforeseen")
    code, output = await dcmtk("storescu", "-v", *where, path)
    assert "0x0110" in output or "ProcessingFailure" in output or code != 0
    handler.accept = lambda _: Rejection(1, 1, 7, "called AE title not recognized")
    code, output = await dcmtk("storescu", *where, path)
    assert code != 0
    assert "Called AE Title Not Recognized" in output
    assert handler.stored == []


async def test_dcmtk_cancels_a_find(handler: Recorder, listener: Listener) -> None:
    handler.endless = True
    code, output = await dcmtk(
        "findscu", "-v", "-S", "--cancel", "3", "-k", "QueryRetrieveLevel=STUDY", "127.0.0.1", str(listener.port)
    )
    assert "Cancel" in output
    assert code == 0
    await eventually(lambda: handler.generators_closed == 1)


async def test_pynetdicom_stores_undecoded(
    handler: Recorder, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pynetdicom._config, "STORE_SEND_CHUNKED_DATASET", True)
    path = instance(tmp_path)

    def send() -> list[int]:
        ae = AE("PYNET")
        ae.add_requested_context(CT, EXPLICIT)
        ae.add_requested_context(VERIFICATION)
        association = ae.associate("127.0.0.1", listener.port)
        assert association.is_established
        statuses = [association.send_c_store(path).Status, association.send_c_echo().Status]
        association.release()
        return statuses

    assert await asyncio.to_thread(send) == [0, 0]
    assert [data for _, data in handler.stored] == [data_set_of(path)]
    await eventually(lambda: handler.ends == [True])


async def test_many_peers_at_once(handler: Recorder, listener: Listener, tmp_path: Path) -> None:
    paths = [instance(tmp_path, number, 200) for number in range(6)]
    contexts = propose([(CT, (EXPLICIT,))])

    async def send(path: Path) -> int:
        peer = RemoteAE("127.0.0.1", listener.port)
        async with association(peer, **AE_TITLES, contexts=contexts) as requestor:
            uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
            return (await requestor.store(1, store_request(CT, uid), data_set_of(path))).status

    assert await asyncio.gather(*(send(path) for path in paths)) == [0] * 6
    assert {data for _, data in handler.stored} == {data_set_of(path) for path in paths}


# peers that we call


@pytest.fixture
async def storescp(tmp_path: Path) -> AsyncIterator[tuple[RemoteAE, Path]]:
    """DCMTK's storescp that keeps data sets as they came, and its folder."""
    port = a_free_port()
    folder = tmp_path / "received"
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        dcmtk_program("storescp"),
        "-od",
        str(folder),
        "--bit-preserving",
        "+xa",
        "-aet",
        "PEER",
        str(port),
        env=NO_DELAY,
    )
    try:
        async with asyncio.timeout(60):
            while (await dcmtk("echoscu", "127.0.0.1", str(port)))[0] != 0:
                await asyncio.sleep(0.02)
        yield RemoteAE("127.0.0.1", port), folder
    finally:
        process.terminate()
        await process.wait()


async def test_storescp_gets_what_we_send(storescp: tuple[RemoteAE, Path], tmp_path: Path) -> None:
    peer, folder = storescp
    assert await echo(peer, **AE_TITLES) == 0
    path = instance(tmp_path)
    data = data_set_of(path)
    uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)

    async def blocks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 70001):
            yield data[start : start + 70001]

    contexts = propose([(CT, (EXPLICIT,)), (MR, (IMPLICIT,))])
    async with association(peer, **AE_TITLES, contexts=contexts) as requestor:
        assert requestor.contexts.keys() == {1, 3}
        assert (await requestor.store(1, store_request(CT, uid), data)).status == 0
        [received] = folder.iterdir()
        assert data_set_of(received) == data
        received.unlink()
        assert (await requestor.store(1, store_request(CT, uid, message_id=2), blocks())).status == 0
        [received] = folder.iterdir()
        assert data_set_of(received) == data


@pytest.mark.parametrize("size", [0, 100_000])
async def test_an_odd_deflated_data_set_is_padded(storescp: tuple[RemoteAE, Path], tmp_path: Path, size: int) -> None:
    """PS3.5 section A.5. A peer aborts the association on an odd fragment."""
    peer, folder = storescp
    uid = str(generate_uid())
    data = deflated(uid, size)

    async def blocks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 7001):
            yield data[start : start + 7001]

    async with association(peer, **AE_TITLES, contexts=propose([(CT, (DEFLATED,))])) as requestor:
        for number, whole_or_blocks in enumerate((data, blocks()), 1):
            response = await requestor.store(1, store_request(CT, uid, message_id=number), whole_or_blocks)
            assert response.status == 0
            [received] = folder.iterdir()
            assert data_set_of(received) == data + b"\0"
            received.unlink()


def deflated(uid: str, size: int) -> bytes:
    """An odd number of bytes that inflate to a CT image."""
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, False
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CT, uid
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    while True:
        data.ImageComments = os.urandom(20).hex()
        data.EncapsulatedDocument = os.urandom(size)
        encoded.seek(0)
        write_dataset(encoded, data)
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        result = deflater.compress(encoded.getvalue()) + deflater.flush()
        if len(result) % 2:
            return result


@pytest.fixture
def pynetdicom_scp() -> Iterator[RemoteAE]:
    """A pynetdicom AE that finds three studies and rejects other called AE titles than PEER."""

    def on_find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(3):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            match = Dataset()
            match.QueryRetrieveLevel, match.StudyInstanceUID = "STUDY", f"1.2.{number}"
            yield 0xFF00, match

    ae = AE("PEER")
    ae.require_called_aet = True
    ae.add_supported_context(STUDY_ROOT_FIND)
    ae.add_supported_context(VERIFICATION)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, on_find)])
    yield RemoteAE("127.0.0.1", server.server_address[1])
    server.shutdown()


async def test_pynetdicom_answers_echo_and_find(pynetdicom_scp: RemoteAE) -> None:
    assert await echo(pynetdicom_scp, **AE_TITLES) == 0
    query = bytes.fromhex("0800520006000000") + b"STUDY " + bytes.fromhex("20000d0000000000")
    responses = [r async for r in find(pynetdicom_scp, **AE_TITLES, sop_class_uid=STUDY_ROOT_FIND, identifier=query)]
    assert [r.command.status for r in responses] == [0xFF00] * 3 + [0]
    assert all(b"1.2." in (r.data or b"") for r in responses[:3])
    with pytest.raises(Refused, match="called AE title"):
        await echo(pynetdicom_scp, calling_ae_title="IMAGING", called_ae_title="OTHER")
