"""What an instance can be rendered to, and the doing of it: decoding and drawing run on the pixel workers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from pydicom.tag import Tag

from imaging_services.adapters.pixels.decoding import decode_frame
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.adapters.rendering.animation import Animation
from imaging_services.adapters.rendering.encoding import GIF, JPEG, PNG
from imaging_services.adapters.rendering.image import frame_file, rendered_size
from imaging_services.adapters.rendering.overlay import DATA_TAGS
from imaging_services.adapters.rendering.presentation import Presentation
from imaging_services.domain.dicom.transfer_syntaxes import name_of
from imaging_services.domain.errors import CannotTranscode, NotFound
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from imaging_services.domain.retrieve.frames import InstanceFrames, open_frames

STILL = (JPEG, PNG, GIF)
MOVING = (GIF, JPEG, PNG)
"""Of a multi-frame image; PS3.18 table 8.7.4-1 has GIF as the default."""

LARGEST_ANIMATION = 1 << 30
"""Pixels of all frames together; who wants more asks for frames."""

_NEEDED = [
    *DATA_TAGS,
    *(
        int(Tag(keyword))
        for keyword in (
            "SharedFunctionalGroupsSequence",
            "PerFrameFunctionalGroupsSequence",
            "ModalityLUTSequence",
            "VOILUTSequence",
            "OpticalPathSequence",
            "ICCProfile",
            *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
            *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
        )
    ),
]


class Source(Protocol):
    """An opened instance of any kind."""

    @property
    def media_types(self) -> Sequence[str]:
        """What it can be rendered to, the default first."""
        ...

    def render(self, media_type: str, presentation: Presentation) -> AsyncIterator[bytes]:
        """The representation in blocks. Raises before the first one for what cannot be done."""
        ...


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An instance with frames."""

    frames: InstanceFrames
    workers: PixelWorkers

    @property
    def media_types(self) -> Sequence[str]:
        """GIF first for a multi-frame image."""
        return MOVING if self.frames.count > 1 else STILL

    @property
    def representative(self) -> int:
        """The frame that stands for all: Representative Frame Number, else the one in the middle."""
        count = self.frames.count
        named = self.frames.header.get("RepresentativeFrameNumber")
        return int(named) if isinstance(named, int) and 1 <= named <= count else (count + 1) // 2

    async def frame(self, number: int, media_type: str, presentation: Presentation) -> bytes:
        """One frame as JPEG, PNG or GIF. Raises ``NotFound`` beyond the last one."""
        async with self._room():
            encoded = await self.frames.encoded(number)
            return await self.workers.run(_file, encoded, self.frames, number, media_type, presentation)

    async def render(self, media_type: str, presentation: Presentation) -> AsyncIterator[bytes]:
        """The only or the representative frame, or all frames as an animated GIF."""
        count = self.frames.count
        if media_type != GIF or count == 1:
            yield await self.frame(self.representative, media_type, presentation)
            return
        if count * self._pixels_of(presentation) > LARGEST_ANIMATION:
            raise CannotTranscode(
                f"{count} frames of this size make too long an animation: ask for frames, or for a smaller viewport"
            )
        animation = Animation(self.frames.header, self.frames.pixels, presentation)
        for number in range(1, count + 1):
            async with self._room():
                encoded = await self.frames.encoded(number)
                image = await self.workers.run(_add, animation, encoded, self.frames, number)
            yield image
        yield animation.end

    def _room(self) -> AbstractAsyncContextManager[None]:
        return self.workers.room(self.frames.pixels.decoded_bytes)

    def _pixels_of(self, presentation: Presentation) -> int:
        columns, rows = rendered_size(self.frames.header, self.frames.pixels, presentation)
        return columns * rows


@dataclass(frozen=True, slots=True)
class FrameSource:
    """One frame of an image, or its thumbnail."""

    image: ImageSource
    number: int

    @property
    def media_types(self) -> Sequence[str]:
        """A single image."""
        return STILL

    async def opened(self) -> "FrameSource":
        """Itself: the image is open already."""
        return self

    async def render(self, media_type: str, presentation: Presentation) -> AsyncIterator[bytes]:
        """The frame. Raises ``NotFound`` beyond the last one."""
        yield await self.image.frame(self.number, media_type, presentation)


async def open_image(store: ObjectStore, workers: PixelWorkers, location: InstanceLocation) -> ImageSource:
    """Find the frames of an instance. Raises ``NotFound`` when its object has vanished, ``CannotTranscode`` when it
    has no pixel data."""
    try:
        return ImageSource(await open_frames(store, location, load=_NEEDED), workers)
    except NotFound as error:
        if await store.head(location.object_name) is None:
            raise
        raise CannotTranscode(f"an instance of {name_of(location.sop_class_uid)} cannot be shown: {error}") from None


async def frame_bytes(
    store: ObjectStore,
    workers: PixelWorkers,
    location: InstanceLocation,
    number: int,
    media_type: str,
    presentation: Presentation | None = None,
) -> bytes:
    """Frame ``number``, from 1, of an instance as ``image/jpeg``, ``image/png`` or ``image/gif``.

    Raises ``NotFound`` without the object or the frame, ``CannotTranscode`` for what cannot be shown.
    """
    if media_type not in STILL:
        raise CannotTranscode(f"a frame is rendered as {', '.join(STILL)}")
    source = await open_image(store, workers, location)
    return await source.frame(number, media_type, presentation or Presentation())


def _file(encoded: bytes, frames: InstanceFrames, number: int, media_type: str, presentation: Presentation) -> bytes:
    frame = decode_frame(encoded, frames.pixels)
    kind = frame.photometric_interpretation
    return frame_file(frame.array, kind, frames.header, frames.pixels, number, media_type, presentation)


def _add(animation: Animation, encoded: bytes, frames: InstanceFrames, number: int) -> bytes:
    frame = decode_frame(encoded, frames.pixels)
    return animation.add(frame.array, frame.photometric_interpretation, number)
