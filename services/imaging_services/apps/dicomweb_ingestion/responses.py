"""Answers that are written as they come, and the headers that let a client skip what it has (RFC 9110)."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC
from email.utils import format_datetime

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from imaging_services.adapters.http.files import FILES, ClientGone, Segment
from imaging_services.apps.dicomweb_ingestion.head import HEAD_ONLY
from imaging_services.domain.manifest.query import InstanceLocation

Write = Callable[[bytes], Awaitable[None]]
Produce = Callable[[Write], Awaitable[None]]

_POSITIONS = re.compile(r"[0-9]{1,40}")
"""Digits of a byte range, first and last: no object is so long that it needs more."""

REVALIDATE = "private, no-cache"
"""May be kept by the user's own cache, to be asked for again by ETag each time."""


class Pushed(Response):
    """An answer whose body is written by ``produce``.

    Status and headers are sent with the first block, so an error before it still gets its own answer. An error
    after it leaves the answer incomplete, which the server shows by closing the connection: a short body is never
    passed off as a complete one. When the client goes away, ``produce`` is cancelled; not when it is ``short``, since
    watching takes two tasks, and what is left to do costs less than they do.
    """

    def __init__(
        self,
        produce: Produce,
        media_type: str,
        headers: Mapping[str, str],
        length: int | None = None,
        *,
        short: bool = False,
    ) -> None:
        self._produce, self._short = produce, short
        self.status_code = 200
        self.background = None
        self.media_type = None  # the Content-Type has its own parameters, Starlette shall add none
        self.body = b""
        names = {"content-type": media_type, **headers}
        if length is not None:
            names["content-length"] = str(length)
        self.raw_headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in names.items()]

    def make_partial(self, start: int, length: int, total: int) -> None:
        """Turn it into 206 with these bytes of ``total``."""
        self.status_code = 206
        self.raw_headers.append((b"content-range", f"bytes {start}-{start + length - 1}/{total}".encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as ASGI application."""
        if scope.get(HEAD_ONLY):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        if self._short:
            await self._send(_Body(scope, send, self.status_code, self.raw_headers))
            return
        body = asyncio.ensure_future(self._send(_Body(scope, send, self.status_code, self.raw_headers)))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({body, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not body.done():
                raise ClientGone
            await body
        finally:
            body.cancel()
            gone.cancel()
            await asyncio.gather(body, gone, return_exceptions=True)

    async def _send(self, body: "_Body") -> None:
        await self._produce(body)
        await body.end()


class _Body:
    """``Write`` of an answer; of one whose length is known, files too, when the server can."""

    def __init__(self, scope: Scope, send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._send, self._started = send, False
        self._start: Message = {"type": "http.response.start", "status": status, "headers": headers}
        known = any(name == b"content-length" for name, _ in headers)
        self.takes_files = known and FILES in scope.get("extensions", ())

    async def __call__(self, block: bytes) -> None:
        await self._begin()
        await self._send({"type": "http.response.body", "body": block, "more_body": True})

    async def send_files(self, segments: Sequence[Segment], length: int) -> None:
        await self._begin()
        await self._send({"type": FILES, "segments": segments, "length": length})

    async def end(self) -> None:
        await self._begin()
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self) -> None:
        if not self._started:
            self._started = True
            await self._send(self._start)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def json_answer(document: object, media_type: str, headers: Mapping[str, str]) -> Response:
    """A JSON document that is at hand."""
    return Response(orjson.dumps(document), headers={**headers, "Content-Type": media_type})


def validators(locations: Sequence[InstanceLocation], *variant: object) -> dict[str, str]:
    """ETag, Last-Modified and Cache-Control of an answer made from these instances.

    The ETag follows the stored bytes and the representation, so equal ones are equal wherever they come from.
    """
    digest = hashlib.sha256()
    for location in locations:
        digest.update(f"{location.sop_instance_uid} {location.object_name} ".encode())
    digest.update(repr(variant).encode())
    newest = max(location.last_modified for location in locations)
    return {
        "ETag": f'"{digest.hexdigest()[:32]}"',
        "Last-Modified": format_datetime(newest.astimezone(UTC), usegmt=True),
        "Cache-Control": REVALIDATE,
        "Vary": "Accept",
    }


def boundary_of(headers: Mapping[str, str]) -> str:
    """A multipart boundary that follows from the ETag, so that the same ETag means the same bytes."""
    return headers["ETag"].strip('"')


def not_modified(request: Request, headers: Mapping[str, str]) -> Response | None:
    """304 when the client has this representation already."""
    sent = request.headers.get("if-none-match")
    if sent is None:
        return None
    tags = {tag.strip().removeprefix("W/") for tag in sent.split(",")}
    if headers["ETag"] not in tags and "*" not in tags:
        return None
    return Response(status_code=304, headers=dict(headers))


def partly(response: Response, recorded: Sequence[InstanceLocation], found: Sequence[InstanceLocation]) -> Response:
    """206 instead of 200 when some of what is recorded is not in the answer (PS3.18 table 10.4.3-2)."""
    if len(found) < len(recorded) and response.status_code == 200:
        response.status_code = 206
    return response


def byte_range(request: Request, length: int, headers: Mapping[str, str]) -> tuple[int, int] | None:
    """Start and length of a single ``Range: bytes=``; None when there is none. 416 when it lies outside.

    A range in another unit, or several ranges, may be ignored; one of another version, as ``If-Range`` tells, is
    (RFC 9110 sections 13.1.5 and 14.2).
    """
    if request.headers.get("if-range", headers["ETag"]) not in (headers["ETag"], headers["Last-Modified"]):
        return None
    header = request.headers.get("range", "")
    unit, _, spec = header.partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip() != "bytes" or not dash or not _POSITIONS.fullmatch(first + last):
        return None
    # The last so many bytes: of none of them there is no range (RFC 9110 section 14.1.2).
    start, end = (int(first), length - 1) if first else (max(0, length - int(last)), length - 1)
    if first and last:
        end = min(int(last), end)
    if start >= length or end < start:
        raise HTTPException(
            416, f"the range lies outside of the {length} bytes", headers={"Content-Range": f"bytes */{length}"}
        )
    return start, end - start + 1
