"""WADO-URI (PS3.18 section 9): parameters, media types, statuses."""

import io
from collections.abc import AsyncIterator

import numpy as np
import pydicom
import pytest

from imaging_services.domain.manifest.query import InstanceLocation
from support.pixels import an_image
from support.rendering import Images, image_in, path_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
EXPLICIT, RLE, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.2"


@pytest.fixture
async def images() -> AsyncIterator[Images]:
    made = Images()
    yield made
    made.workers.close()


def asked(location: InstanceLocation, **parameters: str) -> dict[str, str]:
    return {
        "requestType": "WADO",
        "studyUID": location.study_instance_uid,
        "seriesUID": location.series_instance_uid,
        "objectUID": location.sop_instance_uid,
        **parameters,
    }


async def test_one_side_alone_counts_for_the_length_of_an_animation(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = "imaging_services.apps.dicomweb_ingestion.rendered_sources.LARGEST_ANIMATION"
    monkeypatch.setattr(limit, 30 * 240 * 320)
    location = await images.keep("examples_ybr_color.dcm")
    async with images.client() as client:
        for rows, status in (("240", 200), ("480", 406)):
            answer = await client.get("wado", params=asked(location, contentType="image/gif", rows=rows))
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("name", "content_type", "accept", "expected"),
    [
        ("CT_small.dcm", None, None, "image/jpeg"),
        ("CT_small.dcm", "image/png", None, "image/png"),
        ("CT_small.dcm", "image/jp2, image/png", None, "image/png"),
        ("CT_small.dcm", "image/jpg", None, "image/jpeg"),
        ("CT_small.dcm", "application/dicom", None, "application/dicom"),
        ("CT_small.dcm", None, "application/dicom", "application/dicom"),
        ("CT_small.dcm", None, "image/avif,image/webp,image/*,*/*;q=0.8", "image/jpeg"),
        ("CT_small.dcm", "image/png", "image/jpeg", None),
        ("CT_small.dcm", "image/jp2", None, None),
        ("CT_small.dcm", "video/mpeg", None, None),
        ("examples_ybr_color.dcm", None, None, "application/dicom"),
        ("examples_ybr_color.dcm", "image/gif", None, "image/gif"),
        ("reportsi.dcm", None, None, "text/html; charset=utf-8"),
        ("reportsi.dcm", "text/plain", None, "text/plain; charset=utf-8"),
        ("rtplan.dcm", None, None, "application/dicom"),
        ("rtplan.dcm", "image/jpeg", None, None),
    ],
)
async def test_media_types(
    images: Images, name: str, content_type: str | None, accept: str | None, expected: str | None
) -> None:
    location = await images.keep(name)
    parameters = asked(location, **({"contentType": content_type} if content_type else {}))
    async with images.client() as client:
        answer = await client.get("wado", params=parameters, headers={"accept": accept} if accept else {})
    assert answer.status_code == (200 if expected else 406), answer.text
    assert answer.headers["content-type"] == (expected or "application/problem+json")
    if expected == "application/dicom":
        assert answer.content == images.store.objects[location.object_name]
    if expected is None:
        assert "available: " in answer.json()["detail"]


async def test_a_rendered_image_is_the_same_as_by_wado_rs(images: Images) -> None:
    location = await images.keep("CT_small.dcm")
    uri = asked(
        location,
        contentType="image/png",
        rows="64",
        columns="200",
        region="0.5,0.25,1,0.75",
        windowCenter="40",
        windowWidth="400",
        annotation="patient",
    )
    async with images.client() as client:
        by_uri = await client.get("wado", params=uri)
        by_rs = await client.get(
            f"{path_of(location)}/rendered",
            params={"viewport": "200,64,64,32,64,64", "window": "40,400,linear", "annotation": "patient"},
            headers={"accept": "image/png"},
        )
    assert by_uri.status_code == 200, by_uri.text
    assert image_in(by_uri.content).size == (64, 64)
    assert by_uri.content == by_rs.content


async def test_one_of_rows_and_columns_keeps_the_aspect(images: Images) -> None:
    location = await images.keep("examples_rgb_color.dcm")
    async with images.client() as client:
        wide = image_in((await client.get("wado", params=asked(location, columns="160"))).content)
        high = image_in((await client.get("wado", params=asked(location, rows="120"))).content)
        low = await client.get("wado", params=asked(location, imageQuality="5"))
        fine = await client.get("wado", params=asked(location, imageQuality="95"))
    assert (wide.width, high.height) == (160, 120)
    assert abs(wide.width / wide.height - high.width / high.height) < 0.02
    assert len(low.content) < len(fine.content)


async def test_frames(images: Images) -> None:
    location = await images.keep("examples_ybr_color.dcm")
    async with images.client() as client:
        seventh = await client.get("wado", params=asked(location, frameNumber="7", contentType="image/png"))
        by_rs = await client.get(f"{path_of(location)}/frames/7/rendered", headers={"accept": "image/png"})
        assert seventh.content == by_rs.content
        assert (await client.get("wado", params=asked(location, frameNumber="7"))).headers[
            "content-type"
        ] == "image/jpeg"
        assert (await client.get("wado", params=asked(location, frameNumber="31"))).status_code == 404
        report = await images.keep("reportsi.dcm")
        assert (await client.get("wado", params=asked(report, frameNumber="1"))).status_code == 400


async def test_transfer_syntaxes(images: Images) -> None:
    pixels = np.arange(2 * 30 * 40, dtype=np.uint16).reshape(2, 30, 40)
    location = await images.keep(an_image(pixels))
    async with images.client() as client:
        for syntax in (RLE, EXPLICIT):
            answer = await client.get("wado", params=asked(location, transferSyntax=syntax))
            assert answer.headers["content-type"] == "application/dicom", answer.text
            dataset = pydicom.dcmread(io.BytesIO(answer.content))
            assert dataset.file_meta.TransferSyntaxUID == syntax
            assert np.array_equal(dataset.pixel_array, pixels)
        both = asked(location, transferSyntax=RLE, contentType="image/jpeg")
        assert (await client.get("wado", params=both)).status_code == 406
        unknown = await client.get("wado", params=asked(location, transferSyntax="1.2.3"))
        assert unknown.status_code == 406


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"requestType": "wadi"}, "requestType"),
        ({"requestType": ""}, "requestType"),
        ({"studyUID": ""}, "studyUID"),
        ({"seriesUID": "1.2x"}, "seriesUID"),
        ({"objectUID": "9" * 65}, "objectUID"),
        ({"anonymize": "yes"}, "anonymize"),
        ({"presentationUID": "1.2"}, "presentationUID"),
        ({"presentationSeriesUID": "1.2"}, "presentationSeriesUID"),
        ({"charset": "iso-8859-1"}, "charset"),
        ({"frameNumber": "0"}, "frameNumber"),
        ({"rows": "0"}, "rows"),
        ({"columns": "100000"}, "columns"),
        ({"region": "0,0,1"}, "region"),
        ({"region": "0,0,1.5,1"}, "region"),
        ({"region": "0.5,0,0.5,1"}, "region"),
        ({"windowCenter": "40"}, "windowWidth"),
        ({"windowCenter": "a", "windowWidth": "400"}, "windowCenter"),
        ({"windowCenter": "40", "windowWidth": "0"}, "windowWidth"),
        ({"imageQuality": "0"}, "imageQuality"),
        ({"annotation": "patient,lunch"}, "annotation"),
        ({"transferSyntax": BIG_ENDIAN}, "transferSyntax"),
        ({"contentType": "application/dicom", "rows": "10"}, "rows"),
        ({"transferSyntax": EXPLICIT, "frameNumber": "1"}, "frameNumber"),
    ],
)
async def test_a_parameter_that_is_wrong_or_not_supported_is_named(
    images: Images, change: dict[str, str], named: str
) -> None:
    location = await images.keep("CT_small.dcm")
    async with images.client() as client:
        answer = await client.get("wado", params=asked(location, **change))
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["detail"]


async def test_what_is_not_there(images: Images) -> None:
    location = await images.keep("CT_small.dcm")
    async with images.client() as client:
        assert (await client.get("wado", params=asked(location, objectUID="1.2.3"))).status_code == 404
        assert (await client.get("wado")).status_code == 400
        await images.store.delete(location.object_name)
        for content_type in ("application/dicom", "image/jpeg"):
            gone = await client.get("wado", params=asked(location, contentType=content_type))
            assert gone.status_code == 404


async def test_etags(images: Images) -> None:
    location = await images.keep("CT_small.dcm")
    async with images.client() as client:
        first = await client.get("wado", params=asked(location))
        again = await client.get("wado", params=asked(location), headers={"if-none-match": first.headers["etag"]})
        other = await client.get("wado", params=asked(location, contentType="image/png"))
    assert again.status_code == 304
    assert other.headers["etag"] != first.headers["etag"]
