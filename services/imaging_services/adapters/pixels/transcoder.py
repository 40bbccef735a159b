"""Stored instances in another transfer syntax, frame by frame: memory is bounded by a frame, not by the instance."""

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from imaging_services.adapters.pixels.data_sets import (
    Around,
    Change,
    Edit,
    data_set_around,
    lossy_instance_uid,
    pixel_element_head,
)
from imaging_services.adapters.pixels.decoding import decode_words
from imaging_services.adapters.pixels.encoding import encode_words
from imaging_services.adapters.pixels.syntaxes import can_transcode, require_encodable, same_code_stream
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.domain.dicom.byte_order import ByteSwapper
from imaging_services.domain.dicom.part10 import file_meta
from imaging_services.domain.dicom.pixel_description import PIXEL_DATA, PixelDescription
from imaging_services.domain.dicom.transfer_syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    is_deflated,
    is_encapsulated,
    name_of,
)
from imaging_services.domain.errors import CannotTranscode, NoPixelData
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from imaging_services.domain.retrieve.frames import InstanceFrames, StoredFrames, open_frames
from imaging_services.domain.retrieve.stored_file import StoredFile, open_stored

_UNDEFINED = 0xFFFFFFFF
_ITEM = b"\xfe\xff\x00\xe0"
_EMPTY_OFFSET_TABLE = _ITEM + bytes(4)
_END_OF_ITEMS = b"\xfe\xff\xdd\xe0" + bytes(4)


@dataclass(frozen=True, slots=True)
class TranscodedInstance:
    """An instance in ``transfer_syntax_uid``; the iterators can be run once. Its SOP Instance UID is another one when
    information was lost."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    _blocks: AsyncIterator[bytes]

    async def data_set(self) -> AsyncIterator[bytes]:
        """The data set, as C-STORE sends it."""
        async for block in self._blocks:
            yield block

    async def part10(self) -> AsyncIterator[bytes]:
        """The data set behind a file meta header (PS3.10 section 7.1)."""
        yield file_meta(
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            transfer_syntax=self.transfer_syntax_uid,
        )
        async for block in self._blocks:
            yield block


class Transcoder:
    """Reads instances from a storage space and encodes them anew."""

    def __init__(self, store: ObjectStore, workers: PixelWorkers) -> None:
        self._store, self._workers = store, workers

    async def transcode(self, location: InstanceLocation, target: str, edit: Edit | None = None) -> TranscodedInstance:
        """Prepare an instance: its header and first frame are encoded, the rest follows as it is read. ``edit`` changes
        attributes besides.

        Without pixel data there is nothing to compress: a compressed target becomes Explicit VR Little Endian. Raises
        ``CannotTranscode`` with the reason, ``NotFound`` when the object has vanished or frames cannot be told apart.
        """
        source = location.transfer_syntax_uid
        if not can_transcode(source, target):
            raise CannotTranscode(f"{name_of(source)} cannot be turned into {name_of(target)} here")
        frames = await self._frames(location)
        if frames is None and is_encapsulated(target):
            target = EXPLICIT_VR_LITTLE_ENDIAN
        change = Change(source, target, location.sop_instance_uid, edit=edit)
        if frames is None:
            around = await _around(await open_stored(self._store, location), change)
            return _instance(location, change, _joined(around, _nothing()))
        if not is_encapsulated(source) and not is_encapsulated(target):
            around = await _around(frames.file, change)
            return _instance(location, change, _joined(around, _native(frames, target)))
        return await self._encoded(frames, change)

    async def transcode_frame(self, frames: StoredFrames, number: int, target: str) -> bytes:
        """One frame in the target's encoding. Raises ``CannotTranscode``, or ``NotFound`` beyond the last frame."""
        if same_code_stream(frames.pixels.transfer_syntax_uid, target):
            return await frames.encoded(number)
        async with self._workers.room(frames.pixels.decoded_bytes):
            encoded = await frames.encoded(number)
            return await self._workers.run(_transcode, encoded, frames.pixels, target)

    async def _frames(self, location: InstanceLocation) -> InstanceFrames | None:
        try:
            return await open_frames(self._store, location)
        except NoPixelData:
            return None

    async def _encoded(self, frames: InstanceFrames, change: Change) -> TranscodedInstance:
        location, pixels, target = frames.location, frames.pixels, change.target
        copied = same_code_stream(location.transfer_syntax_uid, target)
        first = await self.transcode_frame(frames, 1, target)
        if not copied:
            becomes = require_encodable(pixels, target)
            change = replace(change, photometric_interpretation=becomes.photometric_interpretation)
            if becomes.lossy:
                # Approximate, as PS3.3 section C.7.6.1.1.5.2 has it: that of the first frame.
                ratio = pixels.decoded_bytes / max(1, len(first))
                uid = lossy_instance_uid(location.sop_instance_uid, target)
                change = replace(change, ratio=ratio, sop_instance_uid=uid)
        around = await _around(frames.file, change)
        if is_encapsulated(target):
            value = self._fragments(frames, first, target)
        else:
            value = self._uncompressed(frames, first, target)
        return _instance(location, change, _joined(around, value))

    async def _fragments(self, frames: InstanceFrames, first: bytes, target: str) -> AsyncIterator[bytes]:
        """One fragment a frame behind an empty Basic Offset Table (PS3.5 annex A.4)."""
        yield pixel_element_head(PIXEL_DATA, "OB", target, _UNDEFINED) + _EMPTY_OFFSET_TABLE
        async for frame in self._all(frames, first, target):
            even = len(frame) + len(frame) % 2
            yield _ITEM + even.to_bytes(4, "little") + frame + bytes(even - len(frame))
        yield _END_OF_ITEMS

    async def _uncompressed(self, frames: InstanceFrames, first: bytes, target: str) -> AsyncIterator[bytes]:
        length = len(first) * frames.count
        yield _native_head(frames.pixels, target, length)
        async for frame in self._all(frames, first, target):
            yield frame
        if length % 2:
            yield b"\0"

    async def _all(self, frames: InstanceFrames, first: bytes, target: str) -> AsyncIterator[bytes]:
        yield first
        for number in range(2, frames.count + 1):
            yield await self.transcode_frame(frames, number, target)


def _transcode(encoded: bytes, pixels: PixelDescription, target: str) -> bytes:
    require_encodable(pixels, target)
    return encode_words(decode_words(encoded, pixels), pixels, target)


async def _around(file: StoredFile, change: Change) -> Around:
    return await file.inspect(lambda content: data_set_around(content, change))


async def _native(frames: InstanceFrames, target: str) -> AsyncIterator[bytes]:
    """Pixel data that is native before and after: the same words, little endian."""
    start, length = frames.layout.value
    yield _native_head(frames.pixels, target, length)
    swapper = ByteSwapper(frames.layout.swap)
    async for block in frames.file.stream(start, length):
        yield swapper.feed(block) if frames.layout.swap > 1 else block
    yield swapper.end() + bytes(length % 2)


def _native_head(pixels: PixelDescription, target: str, length: int) -> bytes:
    if length + length % 2 >= _UNDEFINED:
        raise CannotTranscode("the pixel data is too long to be uncompressed: more than 4 GiB")
    vr = {0x7FE00008: "OF", 0x7FE00009: "OD"}.get(pixels.tag, "OB" if 1 < pixels.bits_allocated <= 8 else "OW")
    return pixel_element_head(pixels.tag, vr, target, length + length % 2)


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


async def _joined(around: Around, value: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield around.before
    async for block in value:
        yield block
    if around.behind:
        yield around.behind


def _instance(location: InstanceLocation, change: Change, blocks: AsyncIterator[bytes]) -> TranscodedInstance:
    uid = change.sop_instance_uid if change.edit is None else change.edit.uid(change.sop_instance_uid)
    blocks = _deflated(blocks) if is_deflated(change.target) else blocks
    return TranscodedInstance(change.target, location.sop_class_uid, uid, blocks)


async def _deflated(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data set as a bare deflate stream, of even length (PS3.5 section A.5)."""
    packer, sent = zlib.compressobj(wbits=-zlib.MAX_WBITS), 0
    async for block in blocks:
        packed = packer.compress(block)
        sent += len(packed)
        if packed:
            yield packed
    rest = packer.flush()
    yield rest + bytes((sent + len(rest)) % 2)
