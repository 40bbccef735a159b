"""WADO-RS over a real HTTP server: instances and frames in the transfer syntax that is asked for."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from support.dicomweb import Recorded, part10_of, reading_app, served
from support.multipart import Part, parts
from support.pixels import an_image, pydicom_file, stored

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files

NATIVE, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
BASELINE, SV1, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5"
LS, J2K, HTJ2K = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
IMAGE_TYPES = {"image/jpeg": SV1, "image/jls": LS, "image/jp2": J2K, "image/jphc": HTJ2K, "image/dicom-rle": RLE}
CT = part10_of(pydicom_file("CT_small.dcm"))
COLOUR = part10_of(pydicom_file("SC_rgb_rle_2frame.dcm"))
LOSSY = part10_of(pydicom_file("SC_rgb_dcmtk_+eb+cy+np.dcm"))


@asynccontextmanager
async def serving(*contents: bytes) -> AsyncIterator[tuple[httpx.AsyncClient, list[str]]]:
    """A client, and the path of each instance."""
    store, recorded = MemoryObjectStore(), Recorded()
    for content in contents:
        _, location = await stored(content, store)
        recorded.locations.append(location)
    paths = [
        f"studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
        for one in recorded.locations
    ]
    async with (
        served(reading_app(recorded, store)) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=60) as client,
    ):
        yield client, paths


def kind_of(part: Part) -> str:
    """Content-Type of a part; the parser puts quotes around parameters."""
    return part.headers["content-type"].replace('"', "")


@pytest.mark.parametrize("target", [DEFLATED, SV1, LS, J2K, HTJ2K, RLE])
async def test_an_instance_in_the_transfer_syntax_that_is_asked_for(target: str) -> None:
    expected = pixel_array(io.BytesIO(CT))
    async with serving(CT) as (client, (path,)):
        for accept in ("application/dicom", 'multipart/related; type="application/dicom"'):
            answer = await client.get(path, headers={"accept": f"{accept}; transfer-syntax={target}"})
            assert answer.status_code == 200, answer.text
            content, kind = answer.content, answer.headers["content-type"]
            if "multipart" in accept:
                (part,) = parts(answer)
                content, kind = part.body, kind_of(part)
            assert kind == f"application/dicom; transfer-syntax={target}"
            dataset = pydicom.dcmread(io.BytesIO(content))
            assert dataset.file_meta.TransferSyntaxUID == target
            again = await back_to_native(client, content)
            np.testing.assert_array_equal(again, expected)


async def back_to_native(client: httpx.AsyncClient, content: bytes) -> np.ndarray:
    """What the service itself makes of an instance that it has transcoded: its first frame, uncompressed."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    async with serving(content) as (other, (path,)):
        accept = 'multipart/related; type="application/octet-stream"'
        (part,) = parts(await other.get(f"{path}/frames/1", headers={"accept": accept}))
    return np.frombuffer(part.body, "<i2").reshape(dataset.Rows, dataset.Columns)


async def test_a_study_with_images_and_reports_in_one_transfer_syntax() -> None:
    report = part10_of(pydicom_file("test-SR.dcm"))
    image = pydicom.dcmread(io.BytesIO(CT))
    image.StudyInstanceUID = pydicom.dcmread(io.BytesIO(report)).StudyInstanceUID
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, image)
    async with serving(buffer.getvalue(), report) as (client, (path, _)):
        study = path.split("/series/")[0]
        accept = f'multipart/related; type="application/dicom"; transfer-syntax={LS}'
        got = parts(await client.get(study, headers={"accept": accept}))
    syntaxes = [pydicom.dcmread(io.BytesIO(part.body)).file_meta.TransferSyntaxUID for part in got]
    assert syntaxes == [LS, NATIVE], "there is nothing to compress in a report"
    assert [kind_of(part).rsplit("=")[-1] for part in got] == [LS, NATIVE]


@pytest.mark.parametrize("media_type", IMAGE_TYPES)
async def test_frames_in_the_media_type_that_is_asked_for(media_type: str) -> None:
    expected = pixel_array(pydicom.dcmread(io.BytesIO(COLOUR)))
    async with serving(COLOUR) as (client, (path,)):
        accept = f'multipart/related; type="{media_type}"'
        got = parts(await client.get(f"{path}/frames/2,1", headers={"accept": accept}))
        assert [part.headers["content-location"].rsplit("/", 1)[1] for part in got] == ["2", "1"]
        assert {kind_of(part) for part in got} == {f"{media_type}; transfer-syntax={IMAGE_TYPES[media_type]}"}
        alone = await client.get(f"{path}/frames/2", headers={"accept": media_type})
        assert alone.content == got[0].body
    if media_type == "image/jp2":
        for part, frame in zip(got, (1, 0), strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(part.body))), expected[frame])


async def test_compressed_frames_are_decoded_for_who_asks_for_octets() -> None:
    expected = pixel_array(pydicom.dcmread(io.BytesIO(LOSSY)))
    async with serving(LOSSY) as (client, (path,)):
        (part,) = parts(
            await client.get(
                f"{path}/frames/1", headers={"accept": 'multipart/related; type="application/octet-stream"'}
            )
        )
        assert kind_of(part) == f"application/octet-stream; transfer-syntax={NATIVE}"
        assert part.body == expected.tobytes(), "RGB, pixel by pixel"
        bulk = await client.get(f"{path}/bulkdata/7FE00010", headers={"accept": "application/octet-stream"})
        assert bulk.content == part.body
        kept = await client.get(f"{path}/frames/1", headers={"accept": "application/octet-stream; transfer-syntax=*"})
        assert kept.content == next(generate_frames(pydicom.dcmread(io.BytesIO(LOSSY)).PixelData, number_of_frames=1))


async def test_loss_needs_to_be_asked_for_and_makes_another_instance() -> None:
    grey = an_image((np.add.outer(np.arange(64), np.arange(64)) % 200).astype(np.uint8)[np.newaxis])
    async with serving(grey) as (client, (path,)):
        answer = await client.get(path, headers={"accept": f"application/dicom; transfer-syntax={BASELINE}"})
        dataset = pydicom.dcmread(io.BytesIO(answer.content))
        assert dataset.LossyImageCompression == "01"
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID != "1.2.3.4"
        frame = await client.get(f"{path}/frames/1", headers={"accept": "image/jpeg"})
        assert frame.headers["content-type"] == f"image/jpeg; transfer-syntax={SV1}", "without loss, unless it is named"


@pytest.mark.parametrize(
    ("path", "accept", "reason"),
    [
        ("", f"application/dicom; transfer-syntax={BASELINE}", "signed"),
        ("/frames/1", f"image/jpeg; transfer-syntax={BASELINE}", "signed"),
        ("", "application/dicom; transfer-syntax=1.2.840.10008.1.2", "available"),
        ("", "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.102", "available"),
        ("/frames/1", "image/png", "available"),
    ],
)
async def test_what_cannot_be_had_is_406_with_the_reason(path: str, accept: str, reason: str) -> None:
    async with serving(CT) as (client, (instance,)):
        answer = await client.get(instance + path, headers={"accept": accept})
        assert answer.status_code == 406
        assert reason in answer.json()["detail"]


async def test_a_second_choice_is_taken_when_the_first_has_no_place_for_the_image() -> None:
    async with serving(CT) as (client, (path,)):
        accept = f"image/jpeg; transfer-syntax={BASELINE}, image/jls;q=0.5"
        answer = await client.get(f"{path}/frames/1", headers={"accept": accept})
        assert answer.headers["content-type"] == f"image/jls; transfer-syntax={LS}"


async def test_frames_beyond_the_last_are_not_found_whatever_is_asked_for() -> None:
    async with serving(CT) as (client, (path,)):
        for accept in ("image/jls", "application/octet-stream"):
            assert (await client.get(f"{path}/frames/2", headers={"accept": accept})).status_code == 404


async def test_transcoded_answers_have_an_etag_of_their_own() -> None:
    async with serving(CT) as (client, (path,)):
        tags = set()
        for suffix, accept in (("", f"application/dicom; transfer-syntax={J2K}"), ("/frames/1", "image/jp2")):
            plain = await client.get(path + suffix)
            first = await client.get(path + suffix, headers={"accept": accept})
            again = await client.get(path + suffix, headers={"accept": accept, "if-none-match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            tags |= {plain.headers["etag"], first.headers["etag"]}
        assert len(tags) == 4


async def test_a_broken_frame_is_a_problem_document_when_it_has_to_be_decoded() -> None:
    dataset = pydicom.dcmread(io.BytesIO(part10_of(pydicom_file("JPEG2000.dcm"))))
    dataset.PixelData = dataset.PixelData[:16] + b"\0" * 64 + dataset.PixelData[80:]
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    async with serving(buffer.getvalue()) as (client, (path,)):
        as_stored = await client.get(f"{path}/frames/1", headers={"accept": "image/jp2"})
        assert as_stored.status_code == 200, "nothing is decoded, so nobody minds"
        decoded = await client.get(f"{path}/frames/1", headers={"accept": "application/octet-stream"})
        assert (decoded.status_code, decoded.headers["content-type"]) == (500, "application/problem+json")


async def test_dicomweb_client_retrieves_in_each_media_type() -> None:
    expected = pydicom.dcmread(io.BytesIO(CT))
    async with serving(CT) as (client, (path,)):
        _, study, _, series, _, instance = path.split("/")
        peer = DICOMwebClient(str(client.base_url).rstrip("/"))
        for syntax in (NATIVE, LS, J2K, RLE):
            got = await asyncio.to_thread(
                peer.retrieve_instance, study, series, instance, media_types=(("application/dicom", syntax),)
            )
            assert got.file_meta.TransferSyntaxUID == syntax
        for media_type in ("image/jls", "image/jp2", "image/dicom-rle", "image/jpeg"):
            (frame,) = await asyncio.to_thread(
                peer.retrieve_instance_frames,
                study,
                series,
                instance,
                [1],
                media_types=((media_type, IMAGE_TYPES[media_type]),),
            )
            assert frame
        (frame,) = await asyncio.to_thread(peer.retrieve_instance_frames, study, series, instance, [1])
        assert frame == expected.PixelData
        whole = await asyncio.to_thread(peer.retrieve_study, study, media_types=(("application/dicom", LS),))
        assert [one.file_meta.TransferSyntaxUID for one in whole] == [LS]
