"""A client of header and frame streaming: of this product, and of any server that keeps the same contracts."""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from imaging_services.domain.errors import InvalidInput, OutOfResources, RetryableError
from imaging_services.domain.http import HttpClient
from imaging_services.domain.streaming.mtom import read_message
from imaging_services.domain.streaming.soap import SOAP_ACTION, StudyHeaderRequest, read_response, request_envelope
from imaging_services.domain.streaming.study_reader import StreamedInstance, StreamedStudy, read_gzipped

LARGEST_HEADER = 655_360_000
"""Bytes of a study header answer, as the contract's own clients limit it."""
LARGEST_FRAME = 1024**3

_FIRST_DELAY, _PATIENCE = 0.05, 1.5  # seconds; a study that is in use is asked for again
_SOAP_PATH = "/HeaderStreaming/HeaderStreaming"

Received = Callable[[int], None]
"""Hears how many bytes more have come."""


@dataclass(frozen=True, slots=True)
class StreamingAddress:
    """``images``: URL of image streaming with its partition; ``headers``: URL of the header streaming service."""

    images: str
    headers: str
    partition: str

    @classmethod
    def of(cls, url: str, headers: str | None = None) -> "StreamingAddress":
        """From ``http://host:port/wado/PARTITION``; the header service is on the same host and port unless it is given.

        Raises ``InvalidInput`` when no partition is named.
        """
        parts = urlsplit(url)
        names = [name for name in parts.path.split("/") if name]
        if parts.scheme not in ("http", "https") or not parts.netloc or len(names) != 2 or names[0].lower() != "wado":
            raise InvalidInput(f"{url[:200]!r} is no URL such as http://host:8080/wado/PARTITION")
        return cls(url.rstrip("/"), headers or f"{parts.scheme}://{parts.netloc}{_SOAP_PATH}", unquote(names[1]))


@dataclass(frozen=True, slots=True)
class StreamedFrame:
    """A frame as it came. ``fields`` are empty for native pixel data, whose geometry is in the instance's header; with
    compressed data they have the transfer syntax and all that a decoder needs; names in lower case."""

    instance: StreamedInstance
    index: int
    content: bytes
    fields: Mapping[str, str]

    @property
    def transfer_syntax_uid(self) -> str:
        """How the pixels are encoded."""
        return self.fields.get("transfersyntaxuid") or self.instance.transfer_syntax_uid


class StreamingClient:
    """Asks one server. ``calling`` is our AE title."""

    def __init__(self, http: HttpClient, address: StreamingAddress, *, calling: str = "IMAGING") -> None:
        self._http, self._address, self._calling = http, address, calling

    async def open_study(self, study_instance_uid: str, received: Received | None = None) -> StreamedStudy:
        """The headers of all instances. Raises ``NotFound``, ``Refused``, ``InvalidInput``, or a RetryableError when
        the study is still in use after 1.5 seconds of asking."""
        loop = asyncio.get_running_loop()
        delay, end = _FIRST_DELAY, loop.time() + _PATIENCE
        while True:
            try:
                content = await self._headers(study_instance_uid, received)
                return await asyncio.to_thread(read_gzipped, content)
            except RetryableError:
                if loop.time() + delay > end:
                    raise
            await asyncio.sleep(delay)
            delay *= 2

    async def frame(
        self, study: StreamedStudy, instance: StreamedInstance, index: int, received: Received | None = None
    ) -> StreamedFrame:
        """Frame ``index`` of an instance, from 0."""
        url = self._url(study, instance, "application/clearcanvas", frameNumber=str(index))
        headers = {"Accept": "application/dicom,application/clearcanvas,image/jpeg"}
        content, fields = await self._body("GET", url, LARGEST_FRAME, headers=headers, received=received)
        return StreamedFrame(instance, index, content, fields if fields.get("compressed") == "true" else {})

    async def header(self, study: StreamedStudy, instance: StreamedInstance) -> bytes:
        """The whole header of an instance as a Part 10 file: what a client asks for once a value was excluded."""
        url = self._url(study, instance, "application/clearcanvas-header", stopTag="7FE00010")
        return (await self._body("GET", url, LARGEST_FRAME))[0]

    async def file(self, study: StreamedStudy, instance: StreamedInstance) -> bytes:
        """The stored file."""
        return (await self._body("GET", self._url(study, instance, "application/dicom"), LARGEST_FRAME))[0]

    async def _headers(self, study_instance_uid: str, received: Received | None) -> bytes:
        asked = StudyHeaderRequest(self._calling, self._address.partition, study_instance_uid, uuid.uuid4().hex)
        body, fields = await self._body(
            "POST",
            self._address.headers,
            LARGEST_HEADER,
            content=request_envelope(asked).encode(),
            headers={"Content-Type": "text/xml; charset=utf-8", "SOAPAction": f'"{SOAP_ACTION}"'},
            accept=frozenset({500}),  # a SOAP fault
            received=received,
        )
        return read_response(read_message(fields.get("content-type", ""), body))

    def _url(self, study: StreamedStudy, instance: StreamedInstance, content_type: str, **more: str) -> str:
        parameters = {
            "requestType": "WADO",
            "studyUID": study.study_instance_uid,
            "seriesUID": instance.series_instance_uid,
            "objectUID": instance.sop_instance_uid,
            "contentType": content_type,
            **more,
        }
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in parameters.items())
        return f"{self._address.images}?{query}"

    async def _body(
        self,
        method: str,
        url: str,
        limit: int,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
        received: Received | None = None,
    ) -> tuple[bytes, Mapping[str, str]]:
        body = bytearray()
        async with self._http.stream(method, url, content=content, headers=headers, accept=accept) as answer:
            async for block in answer.blocks:
                body += block
                if len(body) > limit:
                    raise OutOfResources(f"the answer is longer than {limit} bytes")
                if received is not None:
                    received(len(block))
            return bytes(body), answer.headers
