"""DICOMweb over a storage space in Azure Blob: stored, found, read in ranges; large instances in parts."""

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from imaging_services.adapters.s3.settings import read_bucket_settings
from imaging_services.adapters.s3.space import open_space, space_of
from imaging_services.adapters.s3.store import PART_SIZE
from imaging_services.domain.errors import BackendUnavailable, SettingsError
from support.azurite import Azurite
from support.dicom_files import data_set_of, storable_files
from support.dicomweb_stack import BOUNDARY, dicomweb_stack, stow
from support.multipart import parts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = [
        file
        for file in {file.identity: file for file in reversed(storable_files())}.values()
        if file.path.name != "rtplan_truncated.dcm"
    ]
FRAME = 1024 * 1024
FRAMES = 40
KEY = "1" * 64 + ".dcm"


def large_instance() -> tuple[Dataset, bytes]:
    """A multi-frame CT image of 40 MiB, and its Part 10 file."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.PatientID, image.PatientName, image.Modality = "P1", "Large^Image", "CT"
    image.Rows, image.Columns, image.NumberOfFrames = 512, 1024, FRAMES
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = b"".join(os.urandom(1024) * 1024 for _ in range(FRAMES))
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return image, buffer.getvalue()


async def test_everything_stored_is_found_and_comes_back(
    nats_server: Any, database: Any, azurite_server: Azurite, container: str, tmp_path: Path
) -> None:
    async with (
        dicomweb_stack(nats_server, database, azurite_server, container, tmp_path) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=120) as client,
    ):
        stored = await stow(client, FILES, tmp_path)
        assert stored.status_code == 200, stored.text
        found = (await client.get("instances", params={"limit": 1000})).json()
        assert {item["00080018"]["Value"][0] for item in found} == {file.sop_instance_uid for file in FILES}
        for file in FILES:
            (part,) = parts(await client.get(file.resource))
            assert data_set_of(part.body) == file.data_set, file.path.name
            whole = await client.get(file.resource, headers={"accept": "application/dicom; transfer-syntax=*"})
            ranged = await client.get(
                file.resource, headers={"accept": "application/dicom; transfer-syntax=*", "range": "bytes=100-299"}
            )
            assert (whole.content, ranged.status_code) == (part.body, 206)
            assert ranged.content == part.body[100:300]
            (metadata,) = (await client.get(f"{file.resource}/metadata")).json()
            assert metadata["00080018"]["Value"] == [file.sop_instance_uid]
        again = await stow(client, FILES, tmp_path)
        assert again.status_code == 200
    space = open_space(azurite_server.write_keys(tmp_path / "look", container))
    listed = {info.key: info.size async for info in space.list()}
    assert len(listed) == len(FILES)


async def test_a_large_instance_goes_in_parts_and_is_read_in_ranges(
    nats_server: Any, database: Any, azurite_server: Azurite, container: str, tmp_path: Path
) -> None:
    image, content = large_instance()
    assert len(content) > 4 * PART_SIZE
    resource = f"studies/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}"
    head = b"--" + BOUNDARY.encode() + b"\r\nContent-Type: application/dicom\r\n\r\n"
    async with (
        dicomweb_stack(nats_server, database, azurite_server, container, tmp_path) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=120) as client,
    ):
        stored = await client.post(
            "studies",
            content=head + content + b"\r\n--" + BOUNDARY.encode() + b"--\r\n",
            headers={"content-type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'},
        )
        assert stored.status_code == 200, stored.text
        answer = await client.get(resource, headers={"accept": "application/dicom; transfer-syntax=*"})
        got = pydicom.dcmread(io.BytesIO(answer.content))
        assert hashlib.sha256(got.PixelData).digest() == hashlib.sha256(image.PixelData).digest()
        for number in (1, 17, FRAMES):
            (part,) = parts(await client.get(f"{resource}/frames/{number}"))
            assert part.body == image.PixelData[(number - 1) * FRAME : number * FRAME]
        (metadata,) = (await client.get(f"{resource}/metadata")).json()
        assert metadata["00280008"]["Value"] == [FRAMES]


async def test_what_is_wrong_with_the_space_is_said_in_a_sentence(
    azurite_server: Azurite, container: str, tmp_path: Path
) -> None:
    wrong = {
        "container": ({"AZURE_CONTAINER_NAME": "test-absent"}, "container test-absent at .*does not exist"),
        "key": ({"AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"}, "refuses our credentials"),
        "account": ({"AZURE_STORAGE_ACCOUNT_NAME": "other"}, "refuses our credentials"),
    }
    for name, (keys, complaint) in wrong.items():
        space = open_space(azurite_server.write_keys(tmp_path / name, container, **keys))
        with pytest.raises(BackendUnavailable, match=complaint) as caught:
            await space.check()
        assert "c2VjcmV0" not in str(caught.value)


async def test_a_failed_upload_leaves_no_object(azurite_server: Azurite, container: str, tmp_path: Path) -> None:
    space = space_of(read_bucket_settings(azurite_server.write_keys(tmp_path / "keys", container)))
    with pytest.raises(BackendUnavailable):
        await space.put(KEY, tmp_path)  # a folder cannot be read as a file
    assert [info async for info in space.list()] == []


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"AZURE_STORAGE_CONNECTION_STRING": "account.blob.core.windows.net"}, "AZURE_STORAGE_CONNECTION_STRING.*URL"),
        (
            {"AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=topsecret"},
            "AZURE_STORAGE_CONNECTION_STRING.*URL",
        ),
        ({"AZURE_STORAGE_ACCOUNT_KEY": "topsecret!"}, "AZURE_STORAGE_ACCOUNT_KEY.*base64"),
    ],
)
def test_keys_that_cannot_work_are_refused_at_the_start(keys: dict[str, str], complaint: str, tmp_path: Path) -> None:
    azurite = Azurite("https://account.blob.example.org", "account", "c2VjcmV0")
    with pytest.raises(SettingsError, match=complaint) as caught:
        open_space(azurite.write_keys(tmp_path / "keys", "images", **keys))
    assert "topsecret" not in str(caught.value)
