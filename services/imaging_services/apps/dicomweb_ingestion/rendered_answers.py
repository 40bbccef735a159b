"""Answers with rendered resources: one, or several as parts in order."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from starlette.requests import Request

from imaging_services.adapters.rendering.presentation import Presentation
from imaging_services.apps.dicomweb_ingestion.read_ahead import in_order
from imaging_services.apps.dicomweb_ingestion.rendered_media import Wanted
from imaging_services.apps.dicomweb_ingestion.rendered_sources import Source
from imaging_services.apps.dicomweb_ingestion.responses import Pushed, Write, boundary_of, validators
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.errors import CannotTranscode, InvalidInput, NotFound, PermanentError
from imaging_services.domain.manifest.query import InstanceLocation

log = structlog.get_logger(__name__)

_EDITION = 2
"""Of the rendering: goes into ETags, to be raised when the same request shall give another picture."""

_AHEAD = 2
"""Parts of one request that are read and rendered at once; the pixel workers bound all requests together."""

_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
_TEXT_ONLY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
"""What comes from a stored report never runs as a page of this service, even if an error let it through."""


@dataclass(frozen=True, slots=True)
class RenderedPart:
    """One part: what is opened when its turn comes, and where it can be had alone."""

    open: Callable[[], Awaitable[Source]]
    url: str


def validators_of(request: Request, locations: Sequence[InstanceLocation], kind: str) -> dict[str, str]:
    """ETag and others: the same bytes follow from the same instances, accepted types and parameters."""
    accept = request.headers.getlist("accept")
    tagged = validators(locations, kind, _EDITION, accept, sorted(request.query_params.multi_items()))
    return {**tagged, **_NO_SNIFFING}


@dataclass(frozen=True, slots=True)
class _Begun:
    """A representation whose first blocks are there: what cannot be rendered has raised by now."""

    first: bytes
    second: bytes | None
    rest: AsyncIterator[bytes]

    @property
    def length(self) -> int | None:
        """In bytes, when the first block is all."""
        return len(self.first) if self.second is None else None

    async def write(self, lead: bytes, write: Write) -> None:
        """All blocks, behind ``lead``."""
        await write(lead + self.first)
        block = self.second
        while block is not None:
            await write(block)
            block = await anext(self.rest, None)


async def _begin(source: Source, media_type: str, presentation: Presentation) -> _Begun:
    blocks = source.render(media_type, presentation)
    return _Begun(await anext(blocks, b""), await anext(blocks, None), blocks)


class Single(Pushed):
    """One resource; with its length when it is an image, whose bytes are there before the first is sent."""

    def __init__(self, source: Source, media_type: str, presentation: Presentation, headers: Mapping[str, str]) -> None:
        async def produce(write: Write) -> None:
            begun = await _begin(source, media_type, presentation)
            if begun.length is not None:
                self.raw_headers.append((b"content-length", str(begun.length).encode()))
            await begun.write(b"", write)

        more = _TEXT_ONLY if media_type.startswith("text/") else {}
        super().__init__(produce, _content_type(media_type), {**headers, **more})


class Multipart(Pushed):
    """Several resources. ``choosy``: those that cannot be shown are left out, unless all of them are."""

    def __init__(
        self,
        parts: Sequence[RenderedPart],
        wanted: Wanted,
        presentation: Presentation,
        headers: Mapping[str, str],
        *,
        choosy: bool,
    ) -> None:
        self._wanted, self._presentation, self._choosy = wanted, presentation, choosy
        self._writer = MultipartWriter(boundary_of(headers))
        self._refusal: PermanentError | None = None
        super().__init__(lambda write: self._send_parts(parts, write), "multipart/related", headers)

    async def _send_parts(self, parts: Sequence[RenderedPart], write: Write) -> None:
        first = True

        async def emit(made: tuple[RenderedPart, str, _Begun] | None) -> None:
            nonlocal first
            if made is None:
                return
            part, media_type, begun = made
            if first:
                self.raw_headers[0] = (b"content-type", self._writer.content_type(media_type).encode())
            head = {"Content-Type": _content_type(media_type), "Content-Location": part.url}
            if begun.length is not None:
                head["Content-Length"] = str(begun.length)
            lead, first = self._writer.head(head, first=first), False
            await begun.write(lead, write)

        await in_order(parts, self._made, emit, ahead=_AHEAD)
        if first:
            raise self._refusal or CannotTranscode("nothing here can be shown")
        await write(self._writer.end)

    async def _made(self, part: RenderedPart) -> tuple[RenderedPart, str, _Begun] | None:
        try:
            source = await part.open()
            media_type = self._wanted.choose(source.media_types)
            return part, media_type, await _begin(source, media_type, self._presentation)
        except InvalidInput:
            raise
        except PermanentError as error:
            if not self._choosy:
                raise
            if not isinstance(error, CannotTranscode | NotFound):
                log.warning("instance not rendered", error=type(error).__name__, reason=str(error))
            self._refusal = self._refusal or error
            return None


def _content_type(media_type: str) -> str:
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


def warned(request: Request, headers: dict[str, str], warnings: Sequence[str]) -> dict[str, str]:
    """The headers with warnings (PS3.18 section 8.3.5.1.1)."""
    if not warnings:
        return headers
    host = request.url.netloc or "-"
    return {**headers, "Warning": ", ".join(f'299 {host} "{text}"' for text in warnings)}
