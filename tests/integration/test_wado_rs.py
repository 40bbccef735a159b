"""WADO-RS over a real HTTP server: every file that pydicom ships comes back as it was stored."""

import warnings

import httpx
import pydicom
import pytest
from pydicom.encaps import generate_frames
from structlog.testing import capture_logs

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from support.dicom_files import DicomFile, data_set_of, storable_files
from support.dicomweb import Recorded, keep, kept, part10_of, reading_app, served
from support.multipart import parts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = storable_files()
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"


def named(name: str) -> DicomFile:
    return next(file for file in FILES if file.path.name == name)


async def client_for(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=30)


@pytest.mark.parametrize("told", [True, False], ids=["size known", "size unknown"])
async def test_every_instance_comes_back_byte_for_byte(told: bool) -> None:
    store, recorded = await kept(FILES, told=told)
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        for file in FILES:
            answer = await client.get(file.resource, headers={"accept": 'multipart/related; type="application/dicom"'})
            assert answer.status_code == 200, answer.text
            bodies = [part.body for part in parts(answer)]
            assert file.data_set in [data_set_of(body) for body in bodies]
            assert int(answer.headers["content-length"]) == len(answer.content)


async def test_a_study_has_one_part_an_instance_each_with_its_transfer_syntax_and_location() -> None:
    store, recorded = await kept(FILES)
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        for study in {file.study_instance_uid for file in FILES}:
            answer = await client.get(f"studies/{study}")
            mine = [one for one in recorded.locations if one.study_instance_uid == study]
            got = parts(answer)
            assert [part.headers["content-location"].rsplit("/", 1)[1] for part in got] == [
                one.sop_instance_uid for one in mine
            ]
            for part, one in zip(got, mine, strict=True):
                syntax = f"application/dicom; transfer-syntax={one.transfer_syntax_uid}"
                assert part.headers["content-type"].replace('"', "") == syntax
                assert part.body == store.objects[one.object_name]


async def test_content_location_can_be_followed() -> None:
    file = named("CT_small.dcm")
    store, recorded = await kept([file])
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        (part,) = parts(await client.get(f"studies/{file.study_instance_uid}"))
        again = await client.get(part.headers["content-location"], headers={"accept": "application/dicom"})
        assert again.content == part10_of(file)
        assert again.headers["content-type"] == f"application/dicom; transfer-syntax={file.transfer_syntax_uid}"
        piece = await client.get(
            part.headers["content-location"], headers={"accept": "application/dicom", "range": "bytes=128-131"}
        )
        assert (piece.status_code, piece.content) == (206, b"DICM")


async def test_frames_are_those_that_pydicom_finds() -> None:
    compared = 0
    store, recorded = await kept([])
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        for file in FILES:
            expected = expected_frames(file)
            if not expected:
                continue
            recorded.locations.clear()  # some files are variants of one instance
            await keep(store, recorded, file)
            numbers = range(1, len(expected) + 1)
            for chunk in [list(numbers), [len(expected)]]:
                answer = await client.get(f"{file.resource}/frames/{','.join(map(str, chunk))}")
                assert answer.status_code == 200, (file.path.name, answer.text)
                got = parts(answer)
                assert [part.body for part in got] == [expected[number - 1] for number in chunk], file.path.name
                assert all("transfer-syntax=" in part.headers["content-type"] for part in got)
            compared += 1
            beyond = await client.get(f"{file.resource}/frames/{len(expected) + 1}")
            assert beyond.status_code == 404
    assert compared > 60


def expected_frames(file: DicomFile) -> list[bytes]:
    """Frames by pydicom, in little endian order; empty when there are none or the file is too short for its header."""
    dataset = pydicom.dcmread(file.path)
    if "PixelData" not in dataset or file.path.name == "badVR.dcm":
        return []
    count = int(dataset.get("NumberOfFrames") or 1)
    if dataset.file_meta.TransferSyntaxUID.is_compressed and file.transfer_syntax_uid != DEFLATED:
        return list(generate_frames(dataset.PixelData, number_of_frames=count))
    bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits // 3 * 2
    value = dataset.PixelData
    if file.transfer_syntax_uid == BIG_ENDIAN and (dataset["PixelData"].VR == "OW" or dataset.BitsAllocated > 8):
        size = max(2, dataset.BitsAllocated // 8)
        value = b"".join(value[i : i + size][::-1] for i in range(0, len(value), size))
    if len(value) * 8 < bits * count:
        return []
    if bits % 8:
        return unaligned(value, bits, count)
    return [value[i * bits // 8 : (i + 1) * bits // 8] for i in range(count)]


def unaligned(value: bytes, bits: int, count: int) -> list[bytes]:
    """Frames of single-bit pixels, bit by bit."""
    pixels = [value[i // 8] >> (i % 8) & 1 for i in range(bits * count)]
    frames = [pixels[i * bits : (i + 1) * bits] for i in range(count)]
    return [
        bytes(sum(bit << at for at, bit in enumerate(frame[j : j + 8])) for j in range(0, bits, 8)) for frame in frames
    ]


@pytest.mark.parametrize(
    ("accept", "name", "status", "content_type"),
    [
        (None, "JPEG2000.dcm", 200, "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91"),
        ("*/*", "CT_small.dcm", 200, "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"),
        (
            'multipart/related; type="image/jp2"',
            "JPEG2000.dcm",
            200,
            "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91",
        ),
        (
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
            "JPEG2000.dcm",
            200,
            "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.91",
        ),
        (
            'multipart/related; type="application/octet-stream"',
            "JPEG2000.dcm",
            200,
            "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1",
        ),
        ('multipart/related; type="image/jpeg"; transfer-syntax=1.2.840.10008.1.2.4.50', "JPEG2000.dcm", 406, None),
        ("application/dicom+json", "CT_small.dcm", 406, None),
        ("multipart/related; type=application/octet-stream", "CT_small.dcm", 200, None),
    ],
)
async def test_frames_are_negotiated(accept: str | None, name: str, status: int, content_type: str | None) -> None:
    file = named(name)
    store, recorded = await kept([file])
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        headers = {"accept": accept} if accept else {}
        answer = await client.get(f"{file.resource}/frames/1", headers=headers)
        assert answer.status_code == status
        if status == 406:
            assert answer.json()["detail"]
        elif content_type:
            assert parts(answer)[0].headers["content-type"].replace('"', "") == content_type


async def test_a_single_compressed_frame_can_be_had_without_multipart() -> None:
    file = named("JPEG2000.dcm")
    store, recorded = await kept([file])
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        answer = await client.get(f"{file.resource}/frames/1", headers={"accept": "image/jp2"})
        assert answer.headers["content-type"].startswith("image/jp2")
        assert answer.content == expected_frames(file)[0]


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("studies/1.2.3", None, 404),
        ("studies/1.2.3x", None, 400),
        ("studies/1.2.3/metadata", None, 404),
        ("{instance}/frames/0", None, 400),
        ("{instance}/frames/a", None, 400),
        ("{instance}/frames/1,,1", None, 400),
        ("{instance}/frames/1,1", None, 400),
        ("{instance}/frames/-1", None, 400),
        ("{instance}/frames/2", None, 404),
        ("{instance}/frames/99999999999999999999", None, 400),
        ("{instance}/bulkdata/7FE0", None, 400),
        ("{instance}/bulkdata/00100010/0/00100010", None, 400),
        ("{instance}/bulkdata/00420011", None, 404),
        ("{instance}", "image/png", 406),
        ("{instance}", 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.102', 406),
        ("{instance}", "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50", 406),
        ("{instance}", "nonsense", 400),
        ("{instance}/metadata", "text/html", 406),
        ("{instance}/rendered", None, 404),
        ("{instance}/thumbnail", None, 404),
        ("nothing/here", None, 404),
    ],
)
async def test_bad_requests_get_a_problem_document(path: str, accept: str | None, status: int) -> None:
    file = named("CT_small.dcm")
    store, recorded = await kept([file])
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        headers = {"x-correlation-id": "test-7"} | ({"accept": accept} if accept else {})
        answer = await client.get(path.replace("{instance}", file.resource), headers=headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-correlation-id"] == "test-7"
        problem = answer.json()
        assert (problem["status"], problem["correlation_id"]) == (status, "test-7")
        assert problem["detail"]
        assert "Traceback" not in answer.text


async def test_unchanged_answers_are_304() -> None:
    file = named("CT_small.dcm")
    store, recorded = await kept([file])
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        for suffix in ("", "/metadata", "/frames/1", "/bulkdata/7FE00010"):
            first = await client.get(file.resource + suffix)
            again = await client.get(file.resource + suffix, headers={"if-none-match": f'"x", {first.headers["etag"]}'})
            assert (again.status_code, again.content) == (304, b""), suffix
            other = await client.get(file.resource + suffix, headers={"if-none-match": '"x"'})
            assert (other.status_code, other.content == b"") == (200, False)


async def test_the_same_etag_means_the_same_bytes() -> None:
    file = named("CT_small.dcm")
    store, recorded = await kept([file])
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        for suffix in ("", "/metadata", "/frames/1", "/bulkdata/7FE00010"):
            first, second = [await client.get(file.resource + suffix) for _ in range(2)]
            assert first.headers["etag"] == second.headers["etag"]
            assert first.content == second.content
        packed = await client.get(f"{file.resource}/metadata")
        plain = await client.get(f"{file.resource}/metadata", headers={"accept-encoding": "gzip;q=0"})
        assert packed.headers["content-encoding"] in ("gzip", "zstd")
        assert "content-encoding" not in plain.headers
        assert packed.headers["etag"] != plain.headers["etag"]
        assert packed.json() == plain.json()


async def test_an_instance_whose_object_has_vanished_is_not_found() -> None:
    file = named("CT_small.dcm")
    store, recorded = await kept([file])
    store.objects.clear()
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        for suffix in ("", "/metadata", "/frames/1", "/bulkdata/7FE00010"):
            assert (await client.get(file.resource + suffix)).status_code == 404, suffix


@pytest.mark.parametrize("suffix", ["", "/metadata"])
async def test_a_study_of_which_an_object_has_vanished_breaks_off(suffix: str) -> None:
    files = [file for file in FILES if file.study_instance_uid == most_frequent_study()]
    assert len(files) > 2
    store, recorded = await kept(files)
    del store.objects[recorded.locations[-1].object_name]
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        with capture_logs(), pytest.raises(httpx.RemoteProtocolError):  # printing the traceback takes seconds
            await client.get(f"studies/{files[0].study_instance_uid}{suffix}")


def most_frequent_study() -> str:
    studies = [file.study_instance_uid for file in FILES]
    return max(studies, key=studies.count)


async def test_other_providers_instances_are_invisible() -> None:
    file = named("CT_small.dcm")
    store, recorded = MemoryObjectStore(), Recorded()
    location = await keep(store, recorded, file)
    recorded.locations[0] = type(location)(**{**_fields(location), "provider": "south"})
    async with served(reading_app(recorded, store)) as url, await client_for(url) as client:
        assert (await client.get(file.resource)).status_code == 404


def _fields(location: object) -> dict[str, object]:
    return {name: getattr(location, name) for name in type(location).__dataclass_fields__}
