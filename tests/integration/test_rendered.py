"""Rendered resources and thumbnails: forms, negotiation, statuses (PS3.18 section 10.4)."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from support.dicomweb import served
from support.multipart import parts
from support.pixels import an_image
from support.rendering import Images, image_in, path_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
MULTI_FRAME = "examples_ybr_color.dcm"
PNG = {"accept": "image/png"}


@pytest.fixture
async def images() -> AsyncIterator[Images]:
    made = Images()
    yield made
    made.workers.close()


async def test_formats_and_quality(images: Images) -> None:
    location = await images.keep("CT_small.dcm")
    async with images.client() as client:
        sizes = []
        for query in ("", "?quality=5", "?quality=100"):
            answer = await client.get(f"{path_of(location)}/rendered{query}")
            assert answer.headers["content-type"] == "image/jpeg"
            assert image_in(answer.content).format == "JPEG"
            sizes.append(len(answer.content))
        assert sizes[1] < sizes[0] < sizes[2]
        gif = await client.get(f"{path_of(location)}/rendered?accept=image/gif")
        assert image_in(gif.content).format == "GIF"
        assert image_in(gif.content).n_frames == 1
        profiled = await client.get(f"{path_of(location)}/rendered?iccprofile=yes&accept=image/png")
        assert image_in(profiled.content).info["icc_profile"][36:40] == b"acsp"


async def test_a_multi_frame_image_moves(images: Images) -> None:
    location = await images.keep(MULTI_FRAME)
    async with images.client() as client:
        moving = await client.get(f"{path_of(location)}/rendered?viewport=60,60")
        assert moving.headers["content-type"] == "image/gif"
        film = image_in(moving.content)
        assert (film.n_frames, film.size) == (30, (60, 45))
        assert film.info["duration"] == 30  # Frame Time is 33.333 ms
        still = image_in((await client.get(f"{path_of(location)}/rendered", headers=PNG)).content)
        fifteenth = await client.get(f"{path_of(location)}/frames/15/rendered", headers=PNG)
        assert np.array_equal(np.asarray(still), np.asarray(image_in(fifteenth.content)))
        several = parts(await client.get(f"{path_of(location)}/frames/2,30,1/rendered", headers=PNG))
        assert [part.headers["content-location"].rsplit("/frames/")[1] for part in several] == [
            "2/rendered",
            "30/rendered",
            "1/rendered",
        ]
        assert several[0].body != several[1].body
        twice = await client.get(f"{path_of(location)}/frames/2,30,2/rendered", headers=PNG)
        assert (twice.status_code, twice.json()["detail"]) == (400, "a frame is named twice")
        film.seek(1)
        second = await client.get(f"{path_of(location)}/frames/2/rendered?viewport=60,60", headers=PNG)
        shown = np.asarray(film.convert("RGB")).astype(int)
        assert np.abs(shown - np.asarray(image_in(second.content).convert("RGB"))).mean() < 6


async def test_a_study_has_a_part_for_all_that_can_be_shown(images: Images) -> None:
    one = {"study_instance_uid": "1.2", "series_instance_uid": "1.2.1"}
    for name in ("CT_small.dcm", "rtplan.dcm", "MR_truncated.dcm", "reportsi.dcm", "SC_rgb_rle_2frame.dcm"):
        await images.keep(name, **one)
    async with images.client() as client:
        for path in ("studies/1.2/rendered", "studies/1.2/series/1.2.1/rendered"):
            answer = await client.get(path)
            got = parts(answer)
            types = ["image/jpeg", "text/html; charset=utf-8", "image/gif"]
            assert [part.headers["content-type"].replace('"', "") for part in got] == types
            assert answer.headers["content-type"].startswith('multipart/related; type="image/jpeg"')
            for part, media_type in zip(got, types, strict=True):
                alone = await client.get(part.headers["content-location"], headers={"accept": media_type.split(";")[0]})
                assert alone.content == part.body
        only = await client.get("studies/1.2/rendered", headers={"accept": 'multipart/related; type="text/plain"'})
        assert [part.headers["content-type"].replace('"', "") for part in parts(only)] == ["text/plain; charset=utf-8"]
        none = await client.get("studies/1.2/rendered", headers={"accept": "application/pdf"})
        assert none.status_code == 406


async def test_thumbnails_at_every_level(images: Images) -> None:
    for uid, name in enumerate(("reportsi.dcm", "CT_small.dcm", MULTI_FRAME)):
        await images.keep(name, study_instance_uid="1.2", series_instance_uid=f"1.2.{uid}", sop_instance_uid=f"7.{uid}")
    sizes = {
        "studies/1.2": (256, 256),
        "studies/1.2/series/1.2.1": (256, 256),
        "studies/1.2/series/1.2.2": (256, 192),
        "studies/1.2/series/1.2.2/instances/7.2": (256, 192),
        "studies/1.2/series/1.2.2/instances/7.2/frames/3": (256, 192),
    }
    async with images.client() as client:
        for path, size in sizes.items():
            answer = await client.get(f"{path}/thumbnail")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg"), answer.text
            assert image_in(answer.content).size == size
            small = await client.get(f"{path}/thumbnail?viewport=20,20", headers=PNG)
            assert max(image_in(small.content).size) == 20
        for path in ("studies/1.2/series/1.2.0", "studies/1.2/series/1.2.0/instances/7.0", "studies/1.3"):
            assert (await client.get(f"{path}/thumbnail")).status_code == 404
        beyond = await client.get("studies/1.2/series/1.2.2/instances/7.2/frames/31/thumbnail")
        assert beyond.status_code == 404
        assert (await client.get("studies/1.2/thumbnail?viewport=1,2,3,4,5,6")).status_code == 400


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("quality=0", "quality"),
        ("quality=101", "quality"),
        ("quality=high", "quality"),
        ("viewport=10", "viewport"),
        ("viewport=0,10", "viewport"),
        ("viewport=10,99999", "viewport"),
        ("viewport=10,10,-1,0,5,5", "viewport"),
        ("viewport=10,10,0,0,0,5", "viewport"),
        ("viewport=10,10,0,0,129,5", "viewport"),
        ("viewport=10,10,x,0,5,5", "viewport"),
        ("viewport=1,2,3,4,5,6,7", "viewport"),
        ("window=40,400", "window"),
        ("window=40,400,cubic", "window"),
        ("window=nan,400,linear", "window"),
        ("window=40,0.5,linear", "window"),
        ("window=40,0,sigmoid", "window"),
        ("iccprofile=adobergb", "iccprofile"),
        ("iccprofile=yes&accept=image/gif", "iccprofile"),
        ("charset=iso-8859-1", "charset"),
    ],
)
async def test_a_wrong_parameter_is_named(images: Images, query: str, named: str) -> None:
    location = await images.keep("CT_small.dcm")
    async with images.client() as client:
        answer = await client.get(f"{path_of(location)}/rendered?{query}")
    assert answer.status_code == 400, query
    assert named in answer.json()["detail"]


@pytest.mark.parametrize(
    ("accept", "status", "content_type"),
    [
        (None, 200, "image/jpeg"),
        ("*/*", 200, "image/jpeg"),
        ("image/*", 200, "image/jpeg"),
        ("image/jpg", 200, "image/jpeg"),
        ("video/mp4, image/png;q=0.5", 200, "image/png"),
        ("image/jpeg;q=0.1, image/gif;q=0.9", 200, "image/gif"),
        ('multipart/related; type="image/png"', 200, "multipart/related"),
        ("video/mp4", 406, "application/problem+json"),
        ("image/jp2", 406, "application/problem+json"),
        ("text/html", 406, "application/problem+json"),
        ("image/jpeg;q=0", 406, "application/problem+json"),
    ],
)
async def test_negotiation(images: Images, accept: str | None, status: int, content_type: str) -> None:
    location = await images.keep("CT_small.dcm")
    async with images.client() as client:
        answer = await client.get(f"{path_of(location)}/rendered", headers={"accept": accept} if accept else {})
    assert answer.status_code == status
    assert answer.headers["content-type"].split(";")[0] == content_type
    if status == 406:
        assert "available: image/jpeg, image/png, image/gif" in answer.json()["detail"]


async def test_what_is_not_there_or_cannot_be_shown(images: Images) -> None:
    image, plan = await images.keep("CT_small.dcm"), await images.keep("rtplan.dcm")
    broken = await images.keep("MR_truncated.dcm", sop_instance_uid="1.9")
    async with images.client() as client:
        for path, status in {
            f"{path_of(image)}/frames/0/rendered": 400,
            f"{path_of(image)}/frames/1,x/rendered": 400,
            f"{path_of(image)}/frames/2/rendered": 404,
            f"{path_of(image)}/frames/1,2/rendered": 404,
            f"{path_of(plan)}/rendered": 406,
            f"{path_of(plan)}/frames/1/rendered": 406,
            f"{path_of(plan)}/thumbnail": 404,
            f"{path_of(broken)}/rendered": 404,
            "studies/1.2.3.99/rendered": 404,
            "studies/abc/rendered": 400,
        }.items():
            answer = await client.get(path)
            assert answer.status_code == status, path
            assert answer.json()["detail"]
        await images.store.delete(image.object_name)
        assert (await client.get(f"{path_of(image)}/rendered")).status_code == 404


async def test_annotations_that_are_not_known_are_warned_of(images: Images) -> None:
    location = await images.keep("CT_small.dcm")
    async with images.client() as client:
        answer = await client.get(f"{path_of(location)}/rendered?annotation=patient,lunch")
        assert answer.status_code == 200
        assert "The following annotation values are not supported: lunch" in answer.headers["warning"]


async def test_etags_follow_instance_parameters_and_type(images: Images) -> None:
    location = await images.keep("CT_small.dcm")
    path = f"{path_of(location)}/rendered"
    async with images.client() as client:
        first = await client.get(path)
        again = await client.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = [
            (await client.get(path, params={"quality": "50"})).headers["etag"],
            (await client.get(path, headers=PNG)).headers["etag"],
            (await client.get(path.replace("rendered", "thumbnail"))).headers["etag"],
        ]
        assert len({first.headers["etag"], *other}) == 4


class Counting(MemoryObjectStore):
    """Knows how many bytes were read."""

    read = 0

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        content = await super().get(key, start, length)
        self.read += len(content)
        return content


async def test_only_the_frame_is_read() -> None:
    images = Images(Counting())
    frames = np.arange(64 * 256 * 256, dtype=np.uint16).reshape(64, 256, 256)
    location = await images.keep(an_image(frames))
    async with images.client() as client:
        answer = await client.get(f"{path_of(location)}/frames/60/rendered", headers=PNG)
    images.workers.close()
    assert answer.status_code == 200
    assert frames[0].nbytes < images.store.read < frames[0].nbytes + 300 * 1024  # type: ignore[attr-defined]


async def test_too_long_an_animation_is_refused(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging_services.apps.dicomweb_ingestion.rendered_sources.LARGEST_ANIMATION", 100)
    location = await images.keep(MULTI_FRAME)
    async with images.client() as client:
        answer = await client.get(f"{path_of(location)}/rendered")
        assert answer.status_code == 406
        assert "30 frames" in answer.json()["detail"]
        assert (await client.get(f"{path_of(location)}/rendered", headers=PNG)).status_code == 200


def encapsulated(sop_class: str, **attributes: Any) -> bytes:
    """An instance without pixels."""
    dataset = pydicom.dcmread(io.BytesIO(an_image(np.zeros((1, 2, 2), np.uint8))))
    del dataset.PixelData
    dataset.SOPClassUID = sop_class
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


@pytest.mark.parametrize("size", [1001, 200_001])
async def test_an_encapsulated_pdf_is_given_as_it_is(images: Images, size: int) -> None:
    document = b"%PDF-1.7" + bytes(size - 8)
    told = {"EncapsulatedDocument": document + b"\0", "EncapsulatedDocumentLength": size}
    location = await images.keep(encapsulated("1.2.840.10008.5.1.4.1.1.104.1", **told))
    async with images.client() as client:
        answer = await client.get(f"{path_of(location)}/rendered")
        assert (answer.headers["content-type"], answer.content) == ("application/pdf", document)
        assert (await client.get(f"{path_of(location)}/rendered", headers=PNG)).status_code == 406


@pytest.mark.parametrize(
    ("syntax", "stream", "status"),
    [
        ("1.2.840.10008.1.2.4.102", b"\0\0\0\x18ftypmp42" + bytes(500), 200),
        ("1.2.840.10008.1.2.4.102", b"G" + bytes(511), 406),
        ("1.2.840.10008.1.2.4.100", b"\0\0\1\xba" + bytes(508), 200),
    ],
    ids=["MP4", "MPEG-4 in a transport stream", "MPEG-2"],
)
async def test_stored_videos(images: Images, syntax: str, stream: bytes, status: int) -> None:
    dataset = pydicom.dcmread(io.BytesIO(an_image(np.zeros((90, 2, 2), np.uint8))))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([stream[:300], stream[300:]])
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    location = await images.keep(content.getvalue())
    async with images.client() as client:
        answer = await client.get(f"{path_of(location)}/rendered")
    assert answer.status_code == status
    if status == 200:
        assert answer.headers["content-type"] == ("video/mp4" if syntax.endswith("2") else "video/mpeg")
        assert answer.content == stream


async def test_dicomweb_client_renders(images: Images) -> None:
    single, several = await images.keep("CT_small.dcm"), await images.keep(MULTI_FRAME)

    def ask(url: str) -> None:
        client = DICOMwebClient(f"{url}/dicomweb")
        uids = (single.study_instance_uid, single.series_instance_uid, single.sop_instance_uid)
        for media_type, kind in (("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/gif", "GIF")):
            picture = client.retrieve_instance_rendered(*uids, media_types=(media_type,), params={"quality": 80})
            assert image_in(picture).format == kind
        assert image_in(client.retrieve_instance_rendered(*uids)).format == "JPEG"
        series = client.retrieve_series_rendered(*uids[:2], media_types=("image/jpeg",))
        assert image_in(series).format == "JPEG"
        frame = client.retrieve_instance_frames_rendered(
            several.study_instance_uid,
            several.series_instance_uid,
            several.sop_instance_uid,
            [7],
            media_types=("image/png",),
        )
        assert image_in(frame).size == (320, 240)

    async with served(images.app) as url:
        await asyncio.to_thread(ask, url)


async def test_an_image_is_opened_once_for_all_its_frames() -> None:
    images = Images(Counting())
    location = await images.keep(an_image(np.zeros((64, 256, 256), np.uint16)))
    one = 256 * 256 * 2
    async with images.client() as client:
        paths = [f"{path_of(location)}/frames/{number}/rendered" for number in range(1, 9)]
        answers = await asyncio.gather(*(client.get(path) for path in paths))
        assert {answer.status_code for answer in answers} == {200}
        assert images.store.read < 8 * one + 300 * 1024  # type: ignore[attr-defined]
        content = images.store.objects.pop(location.object_name)
        assert (await client.get(paths[0])).status_code == 404
        images.store.objects[location.object_name] = content
        assert (await client.get(paths[0])).status_code == 200
    images.workers.close()


async def test_what_could_not_be_opened_is_tried_again(images: Images) -> None:
    location = await images.keep("CT_small.dcm")
    content = images.store.objects.pop(location.object_name)
    async with images.client() as client:
        assert (await client.get(f"{path_of(location)}/rendered")).status_code == 404
        images.store.objects[location.object_name] = content
        assert (await client.get(f"{path_of(location)}/rendered")).status_code == 200
