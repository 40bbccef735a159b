"""``GET /wado/{partition}`` over a real HTTP server, on every file that pydicom ships."""

import io
import warnings
from urllib.parse import urlencode

import httpx
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dicomweb_ingestion.streaming import objects
from imaging_services.domain.dicom.fragments import Encapsulation
from imaging_services.domain.dicom.pixel_layout import PixelLayout
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.streaming.frame_source import FrameSource
from support.dicom_files import DicomFile, storable_files
from support.dicomweb import Recorded, keep, part10_of, served
from support.streaming import CountingStore, streaming_app

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = [file for file in storable_files() if file.path.name != "badVR.dcm"]  # has 1A frames
DEFLATED = "1.2.840.10008.1.2.1.99"
AS_STORED = "application/octet-stream; transfer-syntax=*"


def named(name: str) -> DicomFile:
    return next(file for file in FILES if file.path.name == name)


def asking(file: DicomFile, **parameters: object) -> str:
    study, series, instance = file.identity
    uids = {"requestType": "WADO", "studyUID": study, "seriesUID": series, "objectUID": instance}
    return "?" + urlencode({**uids, **parameters}, safe="/")


async def recorded_alone(store: CountingStore, recorded: Recorded, file: DicomFile) -> None:
    recorded.locations.clear()  # some files are variants of one instance
    await keep(store, recorded, file)


async def test_frames_are_those_of_wado_rs_and_of_pydicom_with_what_a_client_needs_to_decode_them() -> None:
    store, recorded = CountingStore(), Recorded()
    compared = encapsulated = 0
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        for file in FILES[::2]:
            await recorded_alone(store, recorded, file)
            dataset = pydicom.dcmread(file.path, stop_before_pixels=True)
            count = int(dataset.get("NumberOfFrames") or 1)
            path = f"/dicomweb/{file.resource}/frames/"
            if (await client.get(f"{path}{count}", headers={"accept": AS_STORED})).status_code != 200:
                continue  # no pixel data, or not enough of it
            for index in {0, count - 1}:
                expected = await client.get(f"{path}{index + 1}", headers={"accept": AS_STORED})
                answer = await client.get(
                    "/wado/north" + asking(file, contentType="application/clearcanvas", frameNumber=index)
                )
                assert (answer.status_code, answer.content) == (200, expected.content), file.path.name
                assert answer.headers["content-type"] == "application/clearcanvas"
                assert answer.headers["content-length"] == str(len(answer.content))
                assert answer.headers.get("islast") == ("true" if index == count - 1 else None)
            compared += 1
            if answer.headers.get("compressed"):
                encapsulated += 1
                whole = pydicom.dcmread(file.path)
                assert answer.content == list(generate_frames(whole.PixelData, number_of_frames=count))[-1]
                assert_decodable(answer, whole)
    assert compared > 30
    assert encapsulated > 12


def assert_decodable(answer: httpx.Response, dataset: pydicom.Dataset) -> None:
    headers = answer.headers
    assert headers["transfersyntaxuid"] == dataset.file_meta.TransferSyntaxUID
    assert (headers["imageheight"], headers["imagewidth"]) == (str(dataset.Rows), str(dataset.Columns))
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"):
        assert headers[keyword] == str(dataset[keyword].value), keyword
    assert headers["photometricinterpretation"] == dataset.PhotometricInterpretation
    assert int(headers["planarconfiguration"]) == (dataset.get("PlanarConfiguration") or 0)
    assert float(headers["lossyimagecompressionratio"]) >= 0
    assert "lossyimagecompression" in headers
    assert "lossyimagecompressionmethod" in headers
    assert "derivationdescription" in headers


async def test_a_frame_is_served_by_reading_little_more_than_the_frame() -> None:
    store, recorded = CountingStore(), Recorded()
    file = named("examples_ybr_color.dcm")
    await keep(store, recorded, file)
    sent = []
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        for index in range(30):
            before = store.read
            answer = await client.get(
                "/wado/north" + asking(file, contentType="application/clearcanvas", frameNumber=index)
            )
            sent.append((len(answer.content), store.read - before))
    assert all(read <= 1.1 * length for length, read in sent[1:]), sent
    assert sum(read for _, read in sent[1:]) == sum(length for length, _ in sent[1:])


async def test_the_header_is_every_element_below_the_stop_tag_in_the_files_own_encoding() -> None:
    store, recorded = CountingStore(), Recorded()
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        for number, file in enumerate(FILES[::2]):
            await recorded_alone(store, recorded, file)
            for stop in (None,) if number % 8 else (None, "00100020", "7fe00010"):
                asked = {"contentType": "application/clearcanvas-header", **({"stopTag": stop} if stop else {})}
                answer = await client.get("/WADO/north" + asking(file, **asked))
                assert answer.status_code == 200, (file.path.name, answer.text)
                assert answer.headers["content-type"] == "application/clearcanvas-header"
                assert_header_below(int(stop or "7FE00010", 16), answer.content, file)


def assert_header_below(stop: int, content: bytes, file: DicomFile) -> None:
    assert content[:132] == bytes(128) + b"DICM"
    header, whole = pydicom.dcmread(io.BytesIO(content)), pydicom.dcmread(file.path)
    meta = int.from_bytes(content[140:144], "little")
    assert content[144 + meta :] == file.data_set[: len(content) - 144 - meta] or file.transfer_syntax_uid == DEFLATED
    assert header.file_meta.TransferSyntaxUID == file.transfer_syntax_uid
    assert [one.tag for one in header] == [one.tag for one in whole if one.tag < stop], file.path.name


async def test_the_header_of_a_large_instance_is_read_without_its_pixels() -> None:
    store, recorded = CountingStore(), Recorded()
    large = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    large.Rows = large.Columns = 2048
    large.PixelData = bytes(2048 * 2048 * 2)
    out = io.BytesIO()
    pydicom.dcmwrite(out, large)
    small = named("CT_small.dcm")
    file = DicomFile(
        small.path,
        *(small.sop_class_uid, small.sop_instance_uid),
        *small.identity[:2],
        small.transfer_syntax_uid,
        out.getvalue()[out.getvalue().index(b"\x08\x00\x05\x00") :],
    )
    await keep(store, recorded, file)
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        answer = await client.get("/wado/north" + asking(file, contentType="application/clearcanvas-header"))
        assert answer.status_code == 200
        assert store.read < 600 * 1024
        assert len(answer.content) < 20 * 1024


async def test_the_stored_file_comes_unchanged_also_a_deflated_one() -> None:
    store, recorded = CountingStore(), Recorded()
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        for file in [named("CT_small.dcm"), next(one for one in FILES if one.transfer_syntax_uid == DEFLATED)]:
            await recorded_alone(store, recorded, file)
            for asked in ({"contentType": "application/dicom"}, {}):
                answer = await client.get(
                    "/wado/north" + asking(file, **asked), headers={"accept": "application/dicom"}
                )
                assert answer.content == part10_of(file)
                assert answer.headers["content-type"] == "application/dicom"


async def test_an_encapsulated_document_comes_as_pdf_and_nothing_else_does() -> None:
    store, recorded = CountingStore(), Recorded()
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.104.1", "1.2.3"
    dataset.EncapsulatedDocument = b"%PDF-1.4 " * 20000
    out = pydicom.filebase.DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(out, dataset)
    document = DicomFile(
        named("CT_small.dcm").path,
        "1.2.840.10008.5.1.4.1.1.104.1",
        "1.2.3",
        "1.2.5",
        "1.2.4",
        "1.2.840.10008.1.2.1",
        out.getvalue(),
    )
    await keep(store, recorded, document)
    await keep(store, recorded, named("CT_small.dcm"))
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        answer = await client.get("/wado/north" + asking(document, contentType="application/pdf"))
        assert (answer.status_code, answer.content) == (200, dataset.EncapsulatedDocument)
        assert answer.headers["content-type"] == "application/pdf"
        other = await client.get("/wado/north" + asking(named("CT_small.dcm"), contentType="application/pdf"))
        assert other.status_code == 501


async def test_images_are_rendered_when_asked_for_and_a_single_frame_by_default() -> None:
    store, recorded = CountingStore(), Recorded()
    single, multi, plan = named("CT_small.dcm"), named("examples_ybr_color.dcm"), named("rtplan.dcm")
    for file in (single, multi, plan):
        await keep(store, recorded, file)
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:

        async def ask(file: DicomFile, accept: str = "*/*", **parameters: object) -> httpx.Response:
            return await client.get("/wado/north" + asking(file, **parameters), headers={"accept": accept})

        jpeg, png = (
            await ask(multi, contentType="image/jpeg", frameNumber=29),
            await ask(single, contentType="image/png"),
        )
        assert (jpeg.status_code, jpeg.headers["content-type"], jpeg.content[:2]) == (200, "image/jpeg", b"\xff\xd8")
        assert (png.status_code, png.headers["content-type"], png.content[:4]) == (200, "image/png", b"\x89PNG")
        assert png.headers["content-length"] == str(len(png.content))
        assert (await ask(multi, contentType="image/jpeg", frameNumber=30)).status_code == 400
        assert (await ask(plan, contentType="image/jpeg")).status_code == 400
        chosen = [
            (await ask(single, "application/dicom,image/jpeg")).headers["content-type"],
            (await ask(single, "application/dicom")).headers["content-type"],
            (await ask(multi, "image/jpeg")).headers["content-type"],
            (await ask(plan, "image/jpeg")).headers["content-type"],
        ]
        assert chosen == ["image/jpeg", "application/dicom", "application/dicom", "application/dicom"]


STATUSES: list[tuple[str, dict[str, str | None], int]] = [
    ("/wado/", {}, 400),
    ("/wado/south", {}, 400),
    ("/wado/NORTH", {}, 400),
    ("/wado/north/", {}, 400),
    ("/wado/north", {"requestType": "OTHER"}, 400),
    ("/wado/north", {"requestType": None}, 400),
    ("/wado/north", {"requestType": "wado"}, 200),
    ("/wAdO/north", {}, 200),
    ("/wado/north", {"studyUID": None, "STUDYUID": "same"}, 200),
    ("/wado/north", {"objectUID": None}, 400),
    ("/wado/north", {"objectUID": "1.2.3"}, 400),
    ("/wado/north", {"studyUID": "no uid"}, 400),
    ("/wado/north", {"contentType": "video/mpeg"}, 400),
    ("/wado/north", {"contentType": "APPLICATION/ClearCanvas"}, 200),
    ("/wado/north", {"contentType": "application/clearcanvas", "frameNumber": "1"}, 400),
    ("/wado/north", {"contentType": "application/clearcanvas", "frameNumber": "-1"}, 400),
    ("/wado/north", {"contentType": "application/clearcanvas", "frameNumber": "first"}, 200),
    ("/wado/north", {"contentType": "application/clearcanvas-header", "stopTag": "7fe00011"}, 400),
    ("/wado/north", {"contentType": "application/clearcanvas-header", "stopTag": "patient"}, 400),
    ("/wado/north", {"rows": "-5", "unknown": "x"}, 200),
]


async def test_statuses() -> None:
    store, recorded = CountingStore(), Recorded()
    file = named("CT_small.dcm")
    await keep(store, recorded, file)
    study, series, instance = file.identity
    uids = {"requestType": "WADO", "studyUID": study, "seriesUID": series, "objectUID": instance}
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        for path, changes, status in STATUSES:
            sent = {name: study if value == "same" else value for name, value in {**uids, **changes}.items()}
            answer = await client.get(path, params={name: value for name, value in sent.items() if value is not None})
            assert answer.status_code == status, (path, changes, answer.text[:200])
            if status != 200:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["detail"]


@pytest.mark.parametrize(
    "content_type", ["application/dicom", "application/clearcanvas", "application/clearcanvas-header"]
)
async def test_an_object_that_has_vanished_is_the_servers_fault(content_type: str) -> None:
    store, recorded = CountingStore(), Recorded()
    file = named("CT_small.dcm")
    await keep(store, recorded, file)
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        store.objects.clear()
        answer = await client.get("/wado/north" + asking(file, contentType=content_type))
        assert answer.status_code == 500
        assert "stored file cannot be read" in answer.json()["detail"]


async def test_a_malformed_accept_header_refuses_nothing() -> None:
    store, recorded = CountingStore(), Recorded()
    await keep(store, recorded, named("CT_small.dcm"))
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        answer = await client.get(
            "/wado/north" + asking(named("CT_small.dcm")), headers={"accept": "image/jpeg;q=much"}
        )
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom")


def test_a_compressed_frame_has_an_even_length_also_where_a_table_leaves_padding_out() -> None:
    spans = Encapsulation([[(1000, 7)], [(1016, 8)]])
    source = FrameSource(PixelLayout("1.2.840.10008.1.2.4.50", 0x7FE00010, 2, (900, 0), 0, 1, spans), {})
    assert [list(source.frame(index)[0].spans) for index in (0, 1)] == [[(1000, 8)], [(1016, 8)]]


async def test_the_places_of_very_many_frames_are_not_all_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_SOURCE_FRAMES", 20)
    store, recorded = CountingStore(), Recorded()
    one = await keep(store, recorded, named("examples_ybr_color.dcm"))  # 30 frames
    other = await keep(store, recorded, named("rtdose_rle.dcm"))  # 15 frames
    streamed = objects.StreamedObjects(store, PixelWorkers())

    async def read(location: InstanceLocation) -> int:
        before = store.read
        await streamed.frames(location)
        return store.read - before

    assert await read(one) > 0
    assert await read(one) == 0
    assert await read(other) > 0
    assert await read(other) == 0, "the last one is remembered"
    assert await read(one) > 0


async def test_an_instance_without_pixels_has_no_frame() -> None:
    store, recorded = CountingStore(), Recorded()
    await keep(store, recorded, named("rtplan.dcm"))
    async with served(streaming_app(recorded, store)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        answer = await client.get("/wado/north" + asking(named("rtplan.dcm"), contentType="application/clearcanvas"))
        assert answer.status_code == 400
