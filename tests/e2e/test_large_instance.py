"""A 1 GiB multi-frame instance through proxy, NATS, ingestion, S3 and WADO-RS, in bounded memory."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterator

import httpx
import pydicom
import pytest
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.dicom.dimse import ProposedContext
from support.memory import peak_resident
from support.stack import Stack, imaging_up

FRAMES, FRAME = 1024, 1024 * 1024
LIMIT = 300 * 1024 * 1024
PREAMBLE = 132

pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with imaging_up(tmp_path_factory.mktemp("large")) as running:
        yield running


async def test_no_process_holds_a_large_instance(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    header = multi_frame()
    sent = hashlib.sha256()
    await send(stack, header, digested(blocks(header), sent))

    resource = f"studies/{header.StudyInstanceUID}/series/{header.SeriesInstanceUID}/instances/{header.SOPInstanceUID}"
    received = await retrieve(f"{stack.url('wado')}/{resource}")

    peaks = peak_resident(stack.ready["pids"])
    with capsys.disabled():
        print("\npeak resident memory: " + ", ".join(f"{n} {p / 2**20:.0f} MiB" for n, p in sorted(peaks.items())))
    assert received == sent.hexdigest()
    assert {name: peak for name, peak in peaks.items() if peak > LIMIT} == {}


def multi_frame() -> pydicom.Dataset:
    header = pydicom.Dataset()
    header.SOPClassUID = UltrasoundMultiFrameImageStorage
    header.SOPInstanceUID, header.StudyInstanceUID, header.SeriesInstanceUID = (generate_uid() for _ in range(3))
    header.PatientID, header.Modality, header.NumberOfFrames = "LARGE", "US", FRAMES
    header.Rows = header.Columns = 1024
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation = 7, 0
    return header


async def blocks(header: pydicom.Dataset) -> AsyncIterator[bytes]:
    """The encoded data set, frame by frame."""
    encoded = pydicom.filebase.DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, False
    write_dataset(encoded, header)
    yield encoded.getvalue() + bytes.fromhex("E07F1000") + b"OB\0\0" + (FRAMES * FRAME).to_bytes(4, "little")
    for number in range(FRAMES):
        yield bytes([number % 256]) * FRAME


async def digested(source: AsyncIterator[bytes], digest: "hashlib._Hash") -> AsyncIterator[bytes]:
    async for block in source:
        digest.update(block)
        yield block


async def send(stack: Stack, header: pydicom.Dataset, data: AsyncIterator[bytes]) -> None:
    proxy = stack.ready["dimse_proxy"]
    association = await RemoteAE(proxy["host"], proxy["port"]).associate(
        calling_ae_title="ECHO-LAB",
        called_ae_title=proxy["ae_title"],
        contexts=(ProposedContext(1, header.SOPClassUID, (ExplicitVRLittleEndian,)),),
    )
    response = await association.store(1, store_request(header.SOPClassUID, header.SOPInstanceUID), data)
    await association.release()
    assert response.status == 0


async def retrieve(url: str) -> str:
    """Digest of the data set that WADO-RS gives back, once it is there; never more than a block in memory."""
    headers = {"Accept": "application/dicom; transfer-syntax=*"}
    async with httpx.AsyncClient(timeout=60) as client, asyncio.timeout(240):
        while True:
            async with client.stream("GET", url, headers=headers) as response:
                if response.status_code == 200:
                    return await digest_of_data_set(response)
                assert response.status_code == 404
            await asyncio.sleep(0.5)


async def digest_of_data_set(response: httpx.Response) -> str:
    head, digest, skip = io.BytesIO(), hashlib.sha256(), -1
    async for block in response.aiter_raw():
        if skip < 0:
            head.write(block)
            start = head.getvalue()
            if len(start) < PREAMBLE + 12:
                continue
            skip = PREAMBLE + 12 + int.from_bytes(start[PREAMBLE + 8 : PREAMBLE + 12], "little")
            block = start
        digest.update(block[skip:])
        skip = max(0, skip - len(block))
    return digest.hexdigest()
