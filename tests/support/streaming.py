"""Header and frame streaming in tests: the application over memory, what it reads, SOAP messages made by hand."""

import base64
import email
import email.policy
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx

from imaging_services.adapters.http.guard import Guard
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.memory.study_headers import MemoryHeaders
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dicomweb_ingestion.app import build_app, prefixes
from imaging_services.apps.dicomweb_ingestion.streaming.routes import streaming_routers
from imaging_services.apps.dicomweb_ingestion.wado import wado_router
from imaging_services.domain.ports import KeptHeaders, ManifestQuery, ObjectStore
from support.dicomweb import PROVIDER

ENDPOINT = "/HeaderStreaming/HeaderStreaming"
ACTION = '"http://tempuri.org/IHeaderStreamingService/GetStudyHeader"'
_ENVELOPE = """<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
  <GetStudyHeader xmlns="http://tempuri.org/"><callingAETitle>WORKSTATION</callingAETitle><parameters
    xmlns:d="http://schemas.datacontract.org/2004/07/ClearCanvas.Dicom.ServiceModel.Streaming"
    xmlns:i="http://www.w3.org/2001/XMLSchema-instance">{}</parameters></GetStudyHeader></s:Body></s:Envelope>"""


class CountingStore(MemoryObjectStore):
    """Counts the objects and bytes that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self.touched: set[str] = set()

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        block = await super().get(key, start, length)
        self.read += len(block)
        self.touched.add(key)
        return block

    async def stream(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        async for block in super().stream(key, start, length):  # which gets, and so counts
            yield block


def streaming_app(
    manifest: ManifestQuery, store: ObjectStore, kept: KeptHeaders | None = None, *, cache_bytes: int = 2**20
) -> Any:
    """WADO-RS and streaming of the partition ``north``."""
    routers = streaming_routers(
        manifest, store, kept or MemoryHeaders(), PROVIDER, PixelWorkers(), cache_bytes=cache_bytes
    )
    read = [wado_router(manifest, store, PROVIDER), routers.studies]
    return Guard(build_app({**prefixes(None, read), "": routers.root}))


def soap_request(study: str, partition: str = PROVIDER, *, order: str = "IRAU") -> bytes:
    """``GetStudyHeader`` with its parameters in the order of these letters."""
    members = {
        "I": "<d:IgnoreInUse>true</d:IgnoreInUse>",
        "R": "<d:ReferenceID>77b1</d:ReferenceID>",
        "A": f"<d:ServerAETitle>{partition}</d:ServerAETitle>",
        "U": f"<d:StudyInstanceUID>{study}</d:StudyInstanceUID>",
    }
    return _ENVELOPE.format("".join(members[letter] for letter in order)).encode()


def soap_headers(content_type: str = "text/xml; charset=utf-8") -> dict[str, str]:
    """As a .NET client sends them."""
    return {"content-type": content_type, "soapaction": ACTION}


def as_mtom(envelope: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of a message in the MTOM form, as a .NET client makes it."""
    head = (
        b"--uuid:1+id=1\r\nContent-ID: <http://tempuri.org/0>\r\nContent-Transfer-Encoding: 8bit\r\n"
        b'Content-Type: application/xop+xml;charset=utf-8;type="text/xml"\r\n\r\n'
    )
    content_type = (
        'multipart/related; type="application/xop+xml";start="<http://tempuri.org/0>";boundary="uuid:1+id=1";'
        'start-info="text/xml"'
    )
    return soap_headers(content_type), head + envelope + b"\r\n--uuid:1+id=1--\r\n"


def study_of(answer: httpx.Response) -> bytes:
    """The gzip bytes of a plain or MTOM answer, taken apart by other means than the product's."""
    if answer.headers["content-type"].startswith("text/xml"):
        found = re.search(rb"<GetStudyHeaderResult>([^<]+)</GetStudyHeaderResult>", answer.content)
        assert found, answer.text
        return base64.b64decode(found[1], validate=True)
    head = f"Content-Type: {answer.headers['content-type']}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.content, policy=email.policy.HTTP)
    root, binary = message.iter_parts()
    reference = re.search(r'href="cid:([^"]+)"', root.get_payload(decode=True).decode())
    assert reference
    assert root["Content-Type"] == 'application/xop+xml; charset="utf-8"; type="text/xml"'
    assert f"<{reference[1]}>" == binary["Content-ID"]
    content: bytes = binary.get_payload(decode=True)
    return content
