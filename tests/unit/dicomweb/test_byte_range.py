"""Range headers of single objects (RFC 9110 section 14)."""

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from imaging_services.apps.dicomweb_ingestion.responses import byte_range

HEADERS = {"ETag": '"1"', "Last-Modified": "Sat, 21 Nov 2026 11:43:00 GMT"}


def range_of(header: bytes, length: int = 100) -> tuple[int, int] | None:
    """Start and length of what the header asks for, of so many bytes."""
    return byte_range(Request({"type": "http", "headers": [(b"range", header)]}), length, HEADERS)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"bytes=0-9", (0, 10)),
        (b"bytes=90-", (90, 10)),
        (b"bytes=90-500", (90, 10)),
        (b"bytes=-5", (95, 5)),
        (b"bytes=-500", (0, 100)),
        (b"bytes=0-" + b"9" * 30, (0, 100)),
    ],
)
def test_one_range(header: bytes, expected: tuple[int, int]) -> None:
    assert range_of(header) == expected


@pytest.mark.parametrize(
    "header",
    [b"bytes=0-1,3-4", b"bytes=", b"bytes=-", b"items=0-1", b"bytes=\xb2-", b"bytes=1-\xb2", b"bytes=0-" + b"9" * 5000],
)
def test_what_is_no_range_is_ignored(header: bytes) -> None:
    assert range_of(header) is None


@pytest.mark.parametrize("header", [b"bytes=100-", b"bytes=5-3", b"bytes=-0"])
def test_outside_of_the_object(header: bytes) -> None:
    with pytest.raises(HTTPException) as refused:
        range_of(header)
    assert refused.value.status_code == 416
    assert (refused.value.headers or {})["Content-Range"] == "bytes */100"


def test_of_nothing_there_is_no_range() -> None:
    with pytest.raises(HTTPException, match="outside"):
        range_of(b"bytes=-5", length=0)
