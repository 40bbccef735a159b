"""The HTTP API asked for whatever its OpenAPI document allows, and for more: every answer is one that it describes."""

import asyncio
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from imaging_services.apps.dicomweb_ingestion.description.catalogue import served_operations
from imaging_services.apps.dicomweb_ingestion.description.openapi import openapi_document
from support.dicom_files import DicomFile, storable_files
from support.dicomweb import PROVIDER, part10_of
from support.dicomweb_in_memory import routers_in_memory, service_in_a_thread, store
from support.fuzzing import fuzzed, noise

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
NAMES = (
    "CT_small.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "rtplan.dcm",
    "reportsi.dcm",
    "SC_rgb_rle_2frame.dcm",
    "badVR.dcm",
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = [file for file in storable_files() if file.path.name in NAMES]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
DOCUMENT = openapi_document(
    one
    for one in served_operations(routers_in_memory(Path(gettempdir()), DICOMWEB_DELETE=True))
    if one.prefix in ("/dicomweb", "")  # the other prefixes have the same
)
# Bodies come from here: schemathesis knows nothing of these types.
TAKEN = {
    path: list(item["post"].pop("requestBody")["content"]) for path, item in DOCUMENT["paths"].items() if "post" in item
}
OPERATIONS = [one.ok() for one in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
WORDS = (b"[]", b"{}", b"null", b'"Value"', b"<", b"-1", b"\r\n--b")
METADATA = b"""[{"00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
"00080018": {"vr": "UI", "Value": ["1.2.9.1"]}, "0020000D": {"vr": "UI", "Value": ["1.2.9"]},
"0020000E": {"vr": "UI", "Value": ["1.2.9.2"]}, "00280030": {"vr": "DS", "Value": [1.5]},
"00400275": {"vr": "SQ", "Value": [{"00400009": {"vr": "SH", "Value": ["a"]}}]},
"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe"}]}, "7FE00010": {"vr": "OW", "BulkDataURI": "p"}}]"""
BODIES = [
    b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part10_of(FILES[0]) + b"\r\n--b--\r\n",
    b"--b\r\n\r\n" + part10_of(FILES[1])[:2000] + b"\r\n--b--",
    part10_of(FILES[0]),
    b"--b\r\nContent-Type: application/dicom+json\r\n\r\n" + METADATA + b"\r\n"
    b"--b\r\nContent-Type: application/octet-stream\r\nContent-Location: p\r\n\r\n1234\r\n--b--\r\n",
    METADATA.replace(b"BulkDataURI", b"InlineBinary"),
    b"<NativeDicomModel><DicomAttribute tag='0020000D' vr='UI'><Value number='1'>1.2.9</Value></DicomAttribute>"
    b"</NativeDicomModel>",
    b"<a:Envelope xmlns:a='http://schemas.xmlsoap.org/soap/envelope/'><a:Body><GetStudyHeader/></a:Body></a:Envelope>",
]
_REQUIRED = ("requestType", "studyUID", "seriesUID", "objectUID")
BY_CONTRACT_500 = "/HeaderStreaming/HeaderStreaming"  # a SOAP fault has this status


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service with a few instances."""
    with service_in_a_thread(tmp_path_factory.mktemp("service"), DICOMWEB_DELETE=True) as running:
        asyncio.run(_store(running))
        yield running


@pytest.mark.parametrize("operation", OPERATIONS, ids=[one.label for one in OPERATIONS])
def test_every_answer_is_described(operation: schemathesis.APIOperation, url: str) -> None:
    checks = CHECKS if operation.path != BY_CONTRACT_500 else CHECKS[1:]
    media_types = st.sampled_from(
        [
            media_type + end
            for media_type in [*TAKEN.get(operation.path, ()), "text/plain"]
            for end in ("", "; boundary=b")
        ]
    )

    @fuzzed(5)
    @given(
        operation.as_strategy(), st.sampled_from([None, *FILES]), st.sampled_from(["1", "2", "1,1", "99"]), st.data()
    )
    def asked(case: schemathesis.Case, known: DicomFile | None, frames: str, data: st.DataObject) -> None:
        if known is not None:
            ids = _ids(known, frames)
            case.path_parameters.update({name: value for name, value in ids.items() if name in case.path_parameters})
            if data.draw(st.booleans()):  # parameters made at random are mostly refused
                case.query = {name: ids.get(name, "WADO") for name in case.query if name in _REQUIRED}
        body: dict[str, Any] = {}
        if operation.method == "post":
            body = {"data": data.draw(noise(BODIES, WORDS)), "headers": {"content-type": data.draw(media_types)}}
        case.call_and_validate(base_url=url, checks=checks, timeout=60, **body)

    asked()
    if operation.method == "delete":
        asyncio.run(_store(url))


async def _store(url: str) -> None:
    async with httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=60) as client:
        await store(client, FILES)


def _ids(file: DicomFile, frames: str) -> dict[str, str]:
    study, series, instance = file.identity
    return {
        "studyUID": study,
        "seriesUID": series,
        "objectUID": instance,
        "study": study,
        "series": series,
        "instance": instance,
        "frames": frames,
        "partition": PROVIDER,
    }


NESTED = "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in pairwise("abcdefghijk"))
XML = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a ENTITY>NESTED]><NativeDicomModel>
<DicomAttribute tag="00100010" vr="LO"><Value number="1">&a;&k;</Value></DicomAttribute></NativeDicomModel>"""


@pytest.mark.parametrize("outside", [False, True], ids=["bomb", "file"])
@pytest.mark.parametrize(
    ("path", "content_type", "status"),
    [
        ("/dicomweb/studies", "application/dicom+xml", 400),
        ("/HeaderStreaming/HeaderStreaming", "text/xml", 500),
    ],
)
def test_xml_with_entities_is_refused(
    url: str, path: str, content_type: str, status: int, outside: bool, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a secret")
    entity = f'SYSTEM "file://{tmp_path}/file"' if outside else '"aaaaaaaaaa"'
    document = XML.replace("ENTITY>NESTED", f"{entity}>{NESTED}")
    headers = {"content-type": content_type, "soapaction": '"GetStudyHeader"'}
    answer = httpx.post(url + path, content=document, headers=headers, timeout=60)
    assert answer.status_code == status
    assert len(answer.content) < 4096
    assert "secret" not in answer.text
