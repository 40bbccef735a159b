"""Content coding of documents: gzip and Zstandard, as the client accepts (RFC 9110 sections 8.4 and 12.5.3, RFC 8878).

What is compressed is text: JSON, XML, HTML, also as parts of a multipart answer. DICOM, images and octets are left
alone, their sizes and ranges are those of the stored bytes. Routers know nothing of codings: the middleware keeps
``Accept-Encoding`` from them, and gives each coding an ETag of its own, as the bytes differ.
"""

import asyncio
import re
import zlib
from collections.abc import Iterable
from typing import Protocol

import zstandard
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imaging_services.domain.dicom.media_types import MULTIPART, parse_media_type
from imaging_services.domain.errors import InvalidInput

SMALLEST = 1024
"""Shorter answers do not get smaller by much."""

_IN_THREAD = 256 * 1024
_TYPES = re.compile(r"text/.+|application/(?!xop\+)(?:.+\+)?(?:json|xml)")  # parts beside an XOP document are binary
_LEVELS = {"zstd": 3, "gzip": 1}
_PREFERRED = ("zstd", "gzip")


class _Packer(Protocol):
    """A compression under way; ``flush`` hands out what is held back, and goes on."""

    def compress(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...
    def end(self) -> bytes: ...


class _Gzip:
    def __init__(self) -> None:
        self._packer = zlib.compressobj(_LEVELS["gzip"], zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self.compress = self._packer.compress

    def flush(self) -> bytes:
        return self._packer.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._packer.flush()


class _Zstd:
    def __init__(self) -> None:
        self._packer = zstandard.ZstdCompressor(_LEVELS["zstd"]).compressobj()
        self.compress = self._packer.compress

    def flush(self) -> bytes:
        return self._packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._packer.flush()


def choose_coding(accept_encoding: str) -> str | None:
    """The coding that the client wants most, of equal ones Zstandard; None is the answer as it is."""
    weights: dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        name, _, weight = item.partition(";")
        try:
            weights[name.strip()] = float(weight.strip().removeprefix("q=") or 1) if weight else 1.0
        except ValueError:
            continue
    wanted = [(weights.get(name, weights.get("*", 0.0)), name) for name in _PREFERRED]
    most, coding = max(wanted, key=lambda one: one[0])
    return coding if most > 0 and most >= weights.get("identity", 0.0) else None


def is_document(content_type: str) -> bool:
    """True for text, JSON and XML, and for parts of such a type."""
    try:
        found = parse_media_type(content_type)
    except InvalidInput:
        return False
    return bool(_TYPES.fullmatch(found.payload if found.type == MULTIPART else found.type))


class Compression:
    """ASGI middleware; the routers are inside."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        coding = choose_coding(", ".join(headers.getlist("accept-encoding")))
        known = headers.get("if-none-match", "")
        scope["headers"] = list(_without_codings(scope["headers"], coding))
        await self._app(scope, receive, _Answer(send, coding, known).send)


def _without_codings(headers: Iterable[tuple[bytes, bytes]], coding: str | None) -> Iterable[tuple[bytes, bytes]]:
    """The request's headers as a service without codings would get them."""
    for name, value in headers:
        if name == b"if-none-match" and coding:
            yield name, value.replace(f'-{coding}"'.encode(), b'"')
        elif name != b"accept-encoding":
            yield name, value


class _Answer:
    """One answer on its way out."""

    def __init__(self, send: Send, coding: str | None, known: str) -> None:
        self._send, self._coding, self._known = send, coding, known
        self._start: Message | None = None
        self._packer: _Packer | None = None

    async def send(self, message: Message) -> None:
        """Pass a message of the application on; the headers wait for the first block of the body."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body":
            await self._send_other(message)
            return
        if self._start is None and self._packer is None:
            await self._send(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        start, self._start = self._start, None
        if start is not None:
            self._begin(start, None if more else len(body))
        if self._packer is not None:
            body = await self._packed(self._packer, body, first=start is not None, last=not more)
        if start is not None:
            if self._packer is not None and not more:
                start["headers"].append((b"content-length", str(len(body)).encode()))
            await self._send(start)
        if body or not more:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _send_other(self, message: Message) -> None:
        """Files that the server sends, of which no byte is seen here: not compressed."""
        start, self._start = self._start, None
        if start is not None:
            self._coding = None
            self._begin(start, None)
            await self._send(start)
        await self._send(message)

    def _begin(self, start: Message, length: int | None) -> None:
        """Decide on the coding, now that the type is known; ``length``: of the body, if this is all of it."""
        headers = MutableHeaders(raw=list(start["headers"]))
        start["headers"] = headers.raw
        if start["status"] == 304:
            self._tag_as_known(headers)
            return
        if not is_document(headers.get("content-type", "")):
            return
        if "accept-encoding" not in headers.get("vary", "").lower():
            headers.add_vary_header("Accept-Encoding")
        size = int(headers.get("content-length", SMALLEST)) if length is None else length
        plain = start["status"] == 206 or "content-encoding" in headers or size < SMALLEST
        if self._coding is None or plain:
            return
        self._packer = _Zstd() if self._coding == "zstd" else _Gzip()
        headers["content-encoding"] = self._coding
        del headers["content-length"]
        if "etag" in headers:
            headers["etag"] = headers["etag"].removesuffix('"') + f'-{self._coding}"'

    def _tag_as_known(self, headers: MutableHeaders) -> None:
        """304 names the tag of what the client has, which may be the compressed one."""
        coded = headers.get("etag", "").removesuffix('"') + f'-{self._coding}"'
        if coded in self._known:
            headers["etag"] = coded

    async def _packed(self, packer: _Packer, block: bytes, *, first: bool, last: bool) -> bytes:
        """The block compressed; the first of several goes out at once, since somebody waits for it."""

        def pack() -> bytes:
            packed = packer.compress(block)
            if last:
                return packed + packer.end()
            return packed + packer.flush() if first else packed

        return await asyncio.to_thread(pack) if len(block) >= _IN_THREAD else pack()
