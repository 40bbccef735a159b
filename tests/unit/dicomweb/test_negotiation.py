"""What an Accept header gets, by what is stored."""

from urllib.parse import quote

import numpy as np
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from imaging_services.apps.dicomweb_ingestion.negotiation import (
    choose_bulk_data,
    choose_document,
    choose_frames,
    choose_instances,
)
from imaging_services.domain.manifest.query import InstanceLocation
from support.pixels import an_image, moved, stored

NATIVE = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BASELINE, SV1 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
LS, NEAR = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
J2K, J2K_LOSSY = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
HTJ2K, RLE, VIDEO = "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.102"
OCTETS = "application/octet-stream"


def asking(accept: str | None, query: str = "") -> Request:
    headers = [] if accept is None else [(b"accept", accept.encode())]
    return Request({"type": "http", "headers": headers, "query_string": query.encode(), "path": "/", "method": "GET"})


@pytest.mark.parametrize(
    ("accept", "kept", "expected"),
    [
        (None, J2K, ("image/jp2", True, J2K)),
        ("*/*", NATIVE, (OCTETS, True, NATIVE)),
        ("*/*", IMPLICIT, (OCTETS, True, NATIVE)),
        (f'multipart/related; type="{OCTETS}"', J2K, (OCTETS, True, NATIVE)),
        (f'multipart/related; type="{OCTETS}"; transfer-syntax=*', J2K, (OCTETS, True, J2K)),
        (f'multipart/related; type="{OCTETS}"; transfer-syntax={NATIVE}', RLE, (OCTETS, True, NATIVE)),
        (OCTETS, SV1, (OCTETS, False, NATIVE)),
        ("image/jpeg", BASELINE, ("image/jpeg", False, BASELINE)),
        ("image/jpeg", NATIVE, ("image/jpeg", False, SV1)),
        (f"image/jpeg; transfer-syntax={BASELINE}", NATIVE, ("image/jpeg", False, BASELINE)),
        (f"image/jpeg; transfer-syntax={SV1}", BASELINE, ("image/jpeg", False, SV1)),
        ("image/jls", NATIVE, ("image/jls", False, LS)),
        ("image/x-jls", NEAR, ("image/x-jls", False, NEAR)),
        ("image/x-dicom-rle", NATIVE, ("image/x-dicom-rle", False, RLE)),
        ("image/jphc", J2K, ("image/jphc", False, HTJ2K)),
        ("image/*", J2K_LOSSY, ("image/jp2", False, J2K_LOSSY)),
        ('multipart/related; type="image/*"', RLE, ("image/dicom-rle", True, RLE)),
        ("image/jls;q=0.5, image/jp2;q=0.9", NATIVE, ("image/jp2", False, J2K)),
        ("image/jls, image/jp2", NATIVE, ("image/jls", False, LS)),
        ("*/*;q=0.1, image/jls", NATIVE, ("image/jls", False, LS)),
        ("image/jp2;q=0, image/*", J2K, ("image/jpeg", False, SV1)),
        (f'*/*, multipart/related; type="{OCTETS}"; q=0', VIDEO, ("video/mp4", True, VIDEO)),
        ("video/mp4", VIDEO, ("video/mp4", False, VIDEO)),
    ],
)
def test_frames(accept: str | None, kept: str, expected: tuple[str, bool, str]) -> None:
    best = choose_frames(asking(accept), kept, single=True)[0]
    assert (best.media_type, best.multipart, best.transfer_syntax_uid) == expected


@pytest.mark.parametrize(
    ("accept", "kept"),
    [
        ("image/png", NATIVE),
        ("image/jp2", VIDEO),
        (OCTETS, VIDEO),
        (f"{OCTETS}; transfer-syntax={IMPLICIT}", NATIVE),
        ("image/jpeg; transfer-syntax=1.2.3", NATIVE),
        ("*/*;q=0", NATIVE),
        ("application/dicom+json", NATIVE),
    ],
)
def test_frames_that_cannot_be_had(accept: str, kept: str) -> None:
    with pytest.raises(HTTPException, match="transfer-syntax=") as refused:
        choose_frames(asking(accept), kept, single=True)
    assert refused.value.status_code == 406


def test_several_frames_need_parts() -> None:
    with pytest.raises(HTTPException):
        choose_frames(asking("image/jp2"), J2K, single=False)
    chosen = choose_frames(asking('image/jp2, multipart/related; type="image/jp2"'), J2K, single=False)[0]
    assert (chosen.multipart, chosen.transfer_syntax_uid) == (True, J2K)


def test_what_may_not_fit_the_image_has_others_behind_it() -> None:
    choices = choose_frames(asking(f"image/jpeg; transfer-syntax={BASELINE}, image/jls;q=0.5"), NATIVE, single=True)
    assert [one.transfer_syntax_uid for one in choices] == [BASELINE, LS]


async def places(*syntaxes: str) -> list[InstanceLocation]:
    _, location = await stored(an_image(np.zeros((1, 2, 2), np.uint8)))
    return [moved(location, transfer_syntax_uid=one) for one in syntaxes]


@pytest.mark.parametrize(
    ("accept", "kept", "multipart", "targets"),
    [
        (None, [NATIVE, J2K], True, [NATIVE, J2K]),
        ("application/dicom", [J2K], False, [J2K]),
        ("application/dicom; transfer-syntax=*", [VIDEO], False, [VIDEO]),
        (f"application/dicom; transfer-syntax={NATIVE}", [J2K], False, [NATIVE]),
        (f'multipart/related; type="application/dicom"; transfer-syntax={LS}', [NATIVE, LS, RLE], True, [LS, LS, LS]),
        (
            f'multipart/related; type="application/dicom"; transfer-syntax={NATIVE}, '
            f'multipart/related; type="application/dicom"; transfer-syntax={J2K}',
            [NATIVE, J2K, RLE],
            True,
            [NATIVE, NATIVE, NATIVE],
        ),
        (f"application/dicom; transfer-syntax={J2K}, */*;q=0.5", [NATIVE], False, [J2K]),
        (f"application/dicom; transfer-syntax={IMPLICIT}", [IMPLICIT], False, [IMPLICIT]),
    ],
)
async def test_instances(accept: str | None, kept: list[str], multipart: bool, targets: list[str]) -> None:
    chosen = choose_instances(asking(accept), await places(*kept), single=len(kept) == 1)
    assert chosen.multipart is multipart
    assert [chosen.targets[one] for one in kept] == targets
    assert chosen.as_stored is (kept == targets)


@pytest.mark.parametrize(
    ("accept", "kept"),
    [
        (f"application/dicom; transfer-syntax={NATIVE}", VIDEO),
        (f"application/dicom; transfer-syntax={IMPLICIT}", NATIVE),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2.2", NATIVE),
        ("image/png", NATIVE),
        ("application/dicom;q=0, */*", NATIVE),
    ],
)
async def test_instances_that_cannot_be_had(accept: str, kept: str) -> None:
    with pytest.raises(HTTPException) as refused:
        choose_instances(asking(accept), await places(kept), single=True)
    assert refused.value.status_code == 406


def test_the_query_parameter_goes_before_the_header() -> None:
    request = asking("application/dicom+json", "accept=" + quote('multipart/related; type="application/dicom+xml"'))
    assert choose_document(request).multipart
    assert choose_document(asking("text/html", "accept=application/dicom+json")).media_type == "application/dicom+json"
    assert choose_document(asking("text/html", "accept=application/json")).media_type == "application/json"


def test_xml_when_it_is_wanted_more() -> None:
    accept = 'application/dicom+json;q=0.4, multipart/related; type="application/dicom+xml"'
    assert choose_document(asking(accept)).media_type == "application/dicom+xml"
    with pytest.raises(HTTPException):
        choose_document(asking("application/pdf"))


def test_bulk_data_is_octets() -> None:
    assert choose_bulk_data(asking(None)).multipart
    assert not choose_bulk_data(asking(OCTETS)).multipart
    with pytest.raises(HTTPException):
        choose_bulk_data(asking("image/jpeg"))
