"""What retrieving reads of the storage space: frames by ranges, metadata without pixel data."""

import io
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import JPEG2000Lossless

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.domain.errors import CannotTranscode
from support.dicomweb import Recorded, reading_app, served
from support.multipart import parts
from support.pixels import an_image, moved, stored

FRAMES, FRAME = 12, 200_000
CONTENT = [b"\xff\x4f\xff\x51" + bytes([65 + number]) * (FRAME - 6) + b"\xff\xd9" for number in range(FRAMES)]
MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.4"


class CountingStore(MemoryObjectStore):
    """Remembers what was read: object, start, length."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[str, int, int]] = []

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        block = await super().get(key, start, length)
        self.reads.append((key, start, len(block)))
        return block

    @property
    def bytes_read(self) -> int:
        return sum(length for _, _, length in self.reads)


def pixel_data_at(content: bytes) -> int:
    """Where the Pixel Data element begins, as the manifest knows it."""
    return content.index(b"\xe0\x7f\x10\x00O")


def encapsulated(value: bytes, **attributes: object) -> bytes:
    """A multi-frame file of these fragments."""
    dataset = pydicom.dcmread(io.BytesIO(an_image(np.zeros((FRAMES, 2, 2), np.uint8), **attributes)))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = value
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    return buffer.getvalue()


def with_wrong_table() -> bytes:
    value = bytearray(encapsulate(CONTENT, has_bot=True))
    struct.pack_into(f"<{FRAMES}I", value, 8, *(1000 * number for number in range(FRAMES)))
    return encapsulated(bytes(value))


def with_extended_table(shift: int = 0) -> bytes:
    value, offsets, lengths = encapsulate_extended(CONTENT)
    if shift:
        numbers = struct.unpack(f"<{FRAMES}Q", offsets)
        offsets = struct.pack(f"<{FRAMES}Q", *(number + shift for number in numbers))
    return encapsulated(value, ExtendedOffsetTable=offsets, ExtendedOffsetTableLengths=lengths)


FILES: dict[str, Callable[[], bytes]] = {
    "offset table": lambda: encapsulated(encapsulate(CONTENT, has_bot=True)),
    "no offset table": lambda: encapsulated(encapsulate(CONTENT, has_bot=False)),
    "wrong offset table": with_wrong_table,
    "extended offset table": with_extended_table,
    "wrong extended offset table": lambda: with_extended_table(4),
    "fragments": lambda: encapsulated(encapsulate(CONTENT, fragments_per_frame=3, has_bot=True)),
    "fragments, no table": lambda: encapsulated(encapsulate(CONTENT, fragments_per_frame=3, has_bot=False)),
    "native": lambda: an_image(np.arange(FRAMES * FRAME, dtype=np.uint8).reshape(FRAMES, 400, 500)),
}


@asynccontextmanager
async def serving(
    store: CountingStore, contents: Sequence[bytes], *, told: bool = True
) -> AsyncIterator[tuple[httpx.AsyncClient, list[str]]]:
    recorded = Recorded()
    for number, content in enumerate(contents):
        _, location = await stored(content, store)
        if told:
            location = moved(location, pixel_data_offset=pixel_data_at(content))
        if number:
            location = moved(location, sop_instance_uid=f"{location.sop_instance_uid}.{number}")
        recorded.locations.append(moved(location, sop_class_uid=MULTI_FRAME))
    paths = [
        f"studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
        for one in recorded.locations
    ]
    async with (
        served(reading_app(recorded, store)) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=60) as client,
    ):
        yield client, paths


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("numbers", [[7], list(range(1, FRAMES + 1))], ids=["one frame", "every frame"])
async def test_frames_cost_little_more_than_their_bytes(name: str, numbers: list[int]) -> None:
    store, expected = CountingStore(), CONTENT
    if name == "native":
        expected = [block.tobytes() for block in np.arange(FRAMES * FRAME, dtype=np.uint8).reshape(FRAMES, -1)]
    async with serving(store, [FILES[name]()]) as (client, (path,)):
        for number in numbers:
            (part,) = parts(await client.get(f"{path}/frames/{number}"))
            assert part.body == expected[number - 1]
    assert store.bytes_read <= 1.1 * FRAME * len(numbers), store.reads


async def test_metadata_of_a_large_study_begins_at_once_and_reads_no_pixel_data() -> None:
    store, count = CountingStore(), 1000
    content = encapsulated(encapsulate(CONTENT[:FRAMES], has_bot=True))
    end_of_header = pixel_data_at(content) + 64
    async with serving(store, [content] * count) as (client, (path, *_)):
        began = monotonic()
        async with client.stream("GET", f"{path.split('/series/')[0]}/metadata") as answer:
            first = await anext(answer.aiter_raw())
            asked, took = len(store.reads), monotonic() - began
        assert first
    assert asked < count / 2, f"{asked} reads before the first bytes, after {took:.3f} s"
    for _, start, length in store.reads:
        assert start + length <= end_of_header or length <= 8, "an offset or the head of a fragment, no more"


async def test_nothing_is_decoded_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CannotTranscode("it would be decoded")

    monkeypatch.setattr("imaging_services.adapters.pixels.transcoder.decode_words", refuse)
    async with serving(CountingStore(), [FILES["offset table"]()]) as (client, (path,)):
        for suffix in ("", "/metadata", "/frames/1", "/bulkdata/7FE00010"):
            assert (await client.get(path + suffix)).status_code == 200
        decoded = await client.get(f"{path}/frames/1", headers={"accept": "application/octet-stream"})
        assert decoded.json()["detail"] == "it would be decoded"
