"""Fetching an announced instance from its storage space by WADO-RS (PS3.18 section 10.4)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imaging_services.apps.instance_binding.instance import Instance, instance_of
from imaging_services.domain.dicom.media_types import MULTIPART, parse_media_type
from imaging_services.domain.dicom.multipart import MultipartParser, PartEnd, PartStart
from imaging_services.domain.errors import BackendUnavailable, InvalidInput, NotFound
from imaging_services.domain.http import HttpClient, HttpStream
from imaging_services.domain.ports import Spool, Spools

_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class WadoSource:
    """Fetches over an HTTP client; ``authorization`` goes verbatim with each request, empty: no such header."""

    def __init__(self, http: HttpClient, spools: Spools, authorization: str = "") -> None:
        self._http = http
        self._spools = spools
        self._headers = {"accept": _ACCEPT} | ({"authorization": authorization} if authorization else {})

    @asynccontextmanager
    async def fetch(self, endpoint: str) -> AsyncIterator[Instance]:
        """The instance at this URL, for the length of the context.

        Raises ``NotFound`` when it is gone, ``NotDicom`` when the answer is no DICOM file, ``BackendUnavailable`` when
        the answer breaks off, ``OutOfResources`` when the spool is full, and what the client makes of other answers.
        """
        async with self._spools.open() as spool:
            declared = await self._fill(spool, endpoint)
            yield await instance_of(spool, declared)

    async def _fill(self, spool: Spool, endpoint: str) -> str | None:
        """Spool the first part, or the whole of an answer without parts; returns the transfer syntax it declares."""
        if not endpoint.startswith(("http://", "https://")):
            raise InvalidInput(f"the announced endpoint {endpoint[:200]!r} is not an http:// or https:// URL")
        try:
            async with self._http.stream("GET", endpoint, headers=self._headers) as answer:
                media_type = parse_media_type(answer.headers.get("content-type", "application/dicom"))
                if media_type.type != MULTIPART:
                    async for block in answer.blocks:
                        await spool.write(block)
                    return media_type.transfer_syntax
                return await _first_part(answer, media_type.parameters.get("boundary", ""), spool)
        except NotFound as error:
            raise NotFound(f"the announced instance is not there: {error}") from error


async def _first_part(answer: HttpStream, boundary: str, spool: Spool) -> str | None:
    """Spool the first part; the rest is read too, so that the connection can be used again."""
    parser = MultipartParser(boundary)
    declared, open_part = None, 0
    async for block in answer.blocks:
        for event in parser.feed(block):
            if isinstance(event, PartStart):
                open_part += 1
                if open_part == 1:
                    declared = _declared(event.headers.get("content-type"))
            elif not isinstance(event, PartEnd) and open_part == 1:
                await spool.write(event)
    try:
        parser.close()
    except InvalidInput as error:
        raise BackendUnavailable(f"the answer with the instance broke off: {error}") from error
    return declared


def _declared(content_type: str | None) -> str | None:
    """The transfer syntax that a part's Content-Type names; ``*`` says nothing."""
    if not content_type:
        return None
    try:
        declared = parse_media_type(content_type).transfer_syntax
    except InvalidInput:
        return None
    return declared if declared != "*" else None
