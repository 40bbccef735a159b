"""WADO-URI (PS3.18 section 9): parameters, media types, statuses."""

import io
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pydicom
import pytest

from imaging_services.adapters.rendering.presentation_state import GRAYSCALE
from imaging_services.domain.manifest.query import InstanceLocation
from support.instances import instance, part10
from support.pixels import an_image
from support.rendering import Images, image_in, item, path_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
EXPLICIT, RLE, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
STATE = {"presentationUID": "1.2", "presentationSeriesUID": "1.2"}


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
        ({"anonymize": "no"}, "anonymize"),
        ({"anonymize": "yes", "rows": "10"}, "rows"),
        ({"presentationUID": "1.2"}, "presentationSeriesUID"),
        ({"presentationSeriesUID": "1.2"}, "presentationUID"),
        ({"presentationUID": "1.2", "presentationSeriesUID": "1.2", "windowCenter": "4"}, "windowWidth"),
        ({**STATE, "windowCenter": "40", "windowWidth": "400"}, "windowCenter"),
        ({**STATE, "contentType": "application/dicom"}, "presentationUID"),
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
async def test_a_parameter_that_is_wrong_is_named(images: Images, change: dict[str, str], named: str) -> None:
    location = await images.keep("CT_small.dcm")
    async with images.client() as client:
        answer = await client.get("wado", params=asked(location, **change))
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["detail"]


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_bigendian.dcm"]
)
async def test_an_anonymized_instance_has_the_pixels_and_nothing_of_the_patient(images: Images, name: str) -> None:
    location = await images.keep(name)
    original = pydicom.dcmread(io.BytesIO(images.store.objects[location.object_name]))
    async with images.client() as client:
        first, second = [await client.get("wado", params=asked(location, anonymize="yes")) for _ in range(2)]
    assert first.status_code == 200, first.text
    assert first.headers["cache-control"] == "no-store"
    assert "etag" not in first.headers
    found = [pydicom.dcmread(io.BytesIO(answer.content)) for answer in (first, second)]
    for dataset in found:
        assert np.array_equal(dataset.pixel_array, original.pixel_array)
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.PatientIdentityRemoved == "YES"
        assert not any(element.tag.is_private for element in dataset)
    assert found[0].StudyInstanceUID != found[1].StudyInstanceUID
    identifying = (original.PatientName, original.PatientID, location.study_instance_uid, location.sop_instance_uid)
    for value in filter(None, map(str, identifying)):
        assert value.encode() not in first.content


@pytest.mark.parametrize("syntax", [RLE, DEFLATED])
async def test_an_anonymized_instance_in_another_transfer_syntax(images: Images, syntax: str) -> None:
    pixels = np.arange(2 * 30 * 40, dtype=np.uint16).reshape(2, 30, 40)
    location = await images.keep(an_image(pixels, BurnedInAnnotation="NO"))
    async with images.client() as client:
        answer = await client.get("wado", params=asked(location, anonymize="yes", transferSyntax=syntax))
        shown = await client.get("wado", params=asked(location, anonymize="yes", contentType="image/jpeg"))
    dataset = pydicom.dcmread(io.BytesIO(answer.content))
    assert dataset.file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(dataset.pixel_array, pixels)
    assert dataset.SOPInstanceUID != location.sop_instance_uid
    assert shown.status_code == 406


async def test_what_cannot_be_anonymized_is_refused(images: Images) -> None:
    burned_in = await images.keep(an_image(np.zeros((1, 4, 4), np.uint8), BurnedInAnnotation="YES"))
    report = await images.keep("reportsi.dcm")
    async with images.client() as client:
        for location in (burned_in, report):
            answer = await client.get("wado", params=asked(location, anonymize="yes"))
            assert answer.status_code == 406
            assert "anonymize" in answer.json()["detail"]


def a_state(location: InstanceLocation, **attributes: Any) -> bytes:
    """A presentation state about an instance, in its study."""
    about = item(ReferencedSOPClassUID=location.sop_class_uid, ReferencedSOPInstanceUID=location.sop_instance_uid)
    series = item(SeriesInstanceUID=location.series_instance_uid, ReferencedImageSequence=[about])
    dataset = instance(
        SOPClassUID=GRAYSCALE,
        StudyInstanceUID=location.study_instance_uid,
        Modality="PR",
        ReferencedSeriesSequence=[series],
        **attributes,
    )
    for keyword in ("Rows", "Columns", "PixelData", "BitsAllocated"):
        dataset.pop(keyword, None)
    return part10(dataset)


async def test_a_presentation_state_is_applied(images: Images) -> None:
    location = await images.keep("CT_small.dcm")
    window = item(WindowCenter=-500, WindowWidth=1500)
    state = await images.keep(
        a_state(location, RescaleIntercept=-1024, RescaleSlope=1, SoftcopyVOILUTSequence=[window], ImageRotation=90)
    )
    named = {"presentationUID": state.sop_instance_uid, "presentationSeriesUID": state.series_instance_uid}
    async with images.client() as client:
        png = {"contentType": "image/png"}
        plain = await client.get("wado", params=asked(location, **png, windowCenter="-500", windowWidth="1500"))
        applied = await client.get("wado", params=asked(location, **png, **named))
        assert applied.status_code == 200, applied.text
        assert np.array_equal(np.asarray(image_in(applied.content)), np.rot90(np.asarray(image_in(plain.content)), -1))
        assert applied.headers["etag"] != plain.headers["etag"]
        small = await client.get("wado", params=asked(location, **png, **named, rows="32"))
        assert image_in(small.content).size == (32, 32)
        itself = {"presentationUID": location.sop_instance_uid, "presentationSeriesUID": location.series_instance_uid}
        assert (await client.get("wado", params=asked(location, **itself))).status_code == 400
        assert (await client.get("wado", params=asked(location, **STATE))).status_code == 404


@pytest.mark.parametrize(
    "parameters",
    [
        {"contentType": "image/png"},
        {"charset": "utf-8"},
        {"anonymize": "yes"},
        {"transferSyntax": RLE},
        {"frameNumber": "1"},
        {"annotation": "patient,technique"},
        {"imageAnnotation": "patient"},
        {"imageQuality": "50"},
        {"rows": "64"},
        {"columns": "64"},
        {"region": "0.1,0.1,0.9,0.9"},
        {"windowCenter": "40", "windowWidth": "400"},
    ],
    ids="+".join,
)
async def test_every_parameter_is_taken_and_changes_the_answer(images: Images, parameters: dict[str, str]) -> None:
    """Those of PS3.18 sections 9.4.1.2 and 9.5.1.2; presentation states have a test of their own."""
    location = await images.keep("CT_small.dcm")
    async with images.client() as client:
        plain = await client.get("wado", params=asked(location))
        answer = await client.get("wado", params=asked(location, **parameters))
    assert answer.status_code == 200, answer.text
    same = {"charset", "frameNumber"} & set(parameters)  # of a single frame, and text is UTF-8 anyway
    assert (answer.content == plain.content) is bool(same)


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
