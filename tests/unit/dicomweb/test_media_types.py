"""Accept headers and media types."""

import pytest

from imaging_services.domain.dicom.media_types import parse_accept, parse_media_type, pixel_media_type
from imaging_services.domain.errors import InvalidInput


def test_ranges_come_in_the_order_of_their_weight() -> None:
    wanted = parse_accept("text/html;q=0.1, application/dicom+json, */*;q=0.5, image/png;q=0")
    assert [item.type for item in wanted] == ["application/dicom+json", "*/*", "text/html"]


def test_quoted_parameters_may_hold_separators() -> None:
    (wanted,) = parse_accept('multipart/related; type="application/dicom"; boundary="a,b;c"; Transfer-Syntax=*')
    assert wanted.is_multipart
    assert wanted.payload == "application/dicom"
    assert (wanted.parameters["boundary"], wanted.transfer_syntax) == ("a,b;c", "*")


def test_without_a_header_anything_is_wanted() -> None:
    assert [item.type for item in parse_accept(None)] == ["*/*"]
    assert parse_accept("")[0].covers("application/dicom")


@pytest.mark.parametrize(
    ("wanted", "media_type", "covered"),
    [
        ("*/*", "image/jpeg", True),
        ("image/*", "image/jpeg", True),
        ("image/*", "application/dicom", False),
        ("multipart/related", "application/dicom", True),
        ('multipart/related; type="image/*"', "image/jls", True),
        ('multipart/related; type="image/jp2"', "image/jls", False),
    ],
)
def test_a_range_covers_a_type(wanted: str, media_type: str, covered: bool) -> None:
    assert parse_media_type(wanted).covers(media_type) is covered


@pytest.mark.parametrize("text", ["nonsense", "a/b/c", "a/b; q=high"])
def test_what_is_no_media_type_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_accept(text)


def test_pixels_have_the_media_type_of_their_compression() -> None:
    assert pixel_media_type("1.2.840.10008.1.2.4.50") == "image/jpeg"
    assert pixel_media_type("1.2.840.10008.1.2.5") == "image/dicom-rle"
    assert pixel_media_type("1.2.840.10008.1.2.1") == "application/octet-stream"
