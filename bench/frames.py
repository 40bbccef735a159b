"""What frames and metadata cost the storage space: bytes read from S3 for each byte of a frame, time to the first byte.

The service runs in this process over a real S3 server; what it reads is counted on the way.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import structlog

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.pixels.transcoder import Transcoder
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.adapters.s3.space import open_space
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from support.dicomweb import Recorded, reading_app, served
from support.pixels import an_image, moved, stored
from support.servers import S3, fresh_bucket, running_s3

FRAMES, SIDE = 60, 512
STUDY_INSTANCES = 1000
KINDS = {
    "native": None,
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "RLE": "1.2.840.10008.1.2.5",
}


@dataclass
class Line:
    """Bytes of frames that were served, bytes that were read for them, median seconds of a request."""

    name: str
    served: int
    read: int
    seconds: float


class Counted:
    """An ``ObjectStore`` that counts what is read through it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store, self.read = store, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        block = await self._store.get(key, start, length)
        self.read += len(block)
        return block

    async def stream(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        async for block in self._store.stream(key, start, length):
            self.read += len(block)
            yield block


def report(folder: Path) -> None:
    """Measure and print a table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    folder.mkdir(parents=True, exist_ok=True)
    with running_s3(folder / "s3") as server:
        lines, first = asyncio.run(_measured(server))
    print(f"\nFrames of {SIDE} x {SIDE}, one request each, from S3\n  {'':34}{'ms':>10}{'read / served':>16}")
    for line in lines:
        print(f"  {line.name:34}{line.seconds * 1000:10.1f}{line.read / line.served:16.3f}")
    print(f"\nMetadata of {STUDY_INSTANCES} instances: first bytes after {first * 1000:.0f} ms\n")


async def _measured(server: S3) -> tuple[list[Line], float]:
    content = an_image(_anatomy(FRAMES), bits_stored=12)
    lines = []
    for name, target in KINDS.items():
        lines.append(await _frames(server, name, [await _encoded(content, target)], FRAMES))
    slices = [an_image(_anatomy(1) + number, bits_stored=12) for number in range(20)]
    lines.append(await _frames(server, "native, 20 slices", slices, 1))
    return lines, await _first_bytes(server, slices[0])


def _anatomy(frames: int) -> np.ndarray:
    """Something smooth with noise, of 12 bits."""
    slope = np.add.outer(np.arange(SIDE), np.arange(SIDE)) * 3 % 3000
    noise = np.random.default_rng(1).integers(0, 40, (frames, SIDE, SIDE))
    return (slope + noise).astype(np.uint16)


async def _encoded(content: bytes, target: str | None) -> bytes:
    if target is None:
        return content
    workers = PixelWorkers()
    store, location = await stored(content, MemoryObjectStore())
    instance = await Transcoder(store, workers).transcode(location, target)
    result = b"".join([block async for block in instance.part10()])
    workers.close()
    return result


async def _frames(server: S3, name: str, contents: list[bytes], frames: int) -> Line:
    """Every frame of each instance once."""
    async with _serving(server, contents) as (client, paths, store):
        taken, sent = [], 0
        for path in paths:
            for number in range(1, frames + 1):
                began = time.perf_counter()
                answer = await client.get(f"{path}/frames/{number}")
                taken.append(time.perf_counter() - began)
                sent += len(answer.raise_for_status().content)
        return Line(name, sent, store.read, statistics.median(taken))


async def _first_bytes(server: S3, content: bytes) -> float:
    async with _serving(server, [content] * STUDY_INSTANCES) as (client, paths, _):
        await client.get("studies/1.2.3.4.5/metadata")  # the connection is there, nothing is read yet
        began = time.perf_counter()
        async with client.stream("GET", f"{paths[0].split('/series/')[0]}/metadata") as answer:
            await anext(answer.aiter_raw())
            return time.perf_counter() - began


@asynccontextmanager
async def _serving(server: S3, contents: list[bytes]) -> AsyncIterator[tuple[httpx.AsyncClient, list[str], Counted]]:
    with tempfile.TemporaryDirectory() as keys:
        space = open_space(*_keys(server, Path(keys)))
    recorded, store = Recorded(), Counted(space)
    known: dict[bytes, InstanceLocation] = {}
    for at, content in enumerate(contents):
        if content not in known:
            _, location = await stored(content, space)
            known[content] = moved(location, pixel_data_offset=content.index(b"\xe0\x7f\x10\x00O"))
        recorded.locations.append(moved(known[content], sop_instance_uid=f"1.2.{at + 1}"))
    paths = [
        f"studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
        for one in recorded.locations
    ]
    app = reading_app(recorded, store)  # type: ignore[arg-type]
    async with served(app) as url, httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=60) as client:
        yield client, paths, store
    await space.close()


def _keys(server: S3, folder: Path) -> tuple[Path, Path]:
    url = urlsplit(server.endpoint)
    config, secret = folder / "config", folder / "secret"
    values = {
        config: {
            "BUCKET_HOST": f"http://{url.hostname}",
            "BUCKET_PORT": str(url.port),
            "BUCKET_REGION": "us-east-1",
            "BUCKET_SUBREGION": "",
            "BUCKET_NAME": fresh_bucket(server),
        },
        secret: {"AWS_ACCESS_KEY_ID": server.access_key_id, "AWS_SECRET_ACCESS_KEY": server.secret_access_key},
    }
    for directory, keys in values.items():
        directory.mkdir()
        for name, value in keys.items():
            (directory / name).write_text(f"{value}\n")
    return config, secret
