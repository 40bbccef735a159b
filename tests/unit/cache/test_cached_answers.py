"""Answers from a space with a read cache: the kernel sends the copies, and one that vanishes is read from the space."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from imaging_services.adapters.cache.settings import SpaceCacheVariables
from imaging_services.adapters.cache.store import CachedStore, cached
from imaging_services.adapters.http.guard import Guard
from imaging_services.apps.dicomweb_ingestion.app import build_app
from imaging_services.apps.dicomweb_ingestion.pieces import Piece, PieceSender, Write
from imaging_services.apps.dicomweb_ingestion.responses import Pushed
from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.manifest.deletion import object_key
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.retrieve.stored_file import StoredFile
from support.dicomweb import served
from support.streaming import CountingStore

CONTENTS = [number.to_bytes(2) * (20_000 + 1000 * number) for number in range(44)]
KEYS = [object_key(hashlib.sha256(content).hexdigest()) for content in CONTENTS]
WHOLE = b"".join(b"<part>" + content for content in CONTENTS) + b"end"


@dataclass
class Served:
    """A service that reads from ``space``, and the objects that it read for an answer."""

    space: CountingStore
    store: CachedStore
    folder: Path
    url: str

    async def answer(self) -> bytes:
        self.space.touched.clear()
        async with httpx.AsyncClient(timeout=30) as client:
            return (await client.get(self.url)).content

    async def all_kept(self) -> None:
        async with asyncio.timeout(30):
            while not all(self.store.file(key) for key in KEYS):
                await asyncio.sleep(0.005)

    def throw_out(self, *numbers: int) -> set[str]:
        """As another process may, without a word to this one."""
        for number in numbers:
            next(self.folder.glob(f"boot-*/{KEYS[number]}")).unlink()
        return {KEYS[number] for number in numbers}


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Served]:
    space = CountingStore()
    for key, content in zip(KEYS, CONTENTS, strict=True):
        await space.put(key, content)
    store = await cached(space, SpaceCacheVariables(SPACE_CACHE_DIRECTORY=folder))
    assert isinstance(store, CachedStore)

    def piece(key: str, size: int) -> Piece:
        place = InstanceLocation(
            "1", "1.1", "1.1.1", "1.2", "1.2.840.10008.1.2.1", "north", key, None, size, None, None, datetime.now(UTC)
        )
        return Piece(b"<part>", StoredFile(store, place, size), 0, size)

    async def answer(_request: Request) -> Response:
        async def produce(write: Write) -> None:
            pieces = [piece(key, len(content)) for key, content in zip(KEYS, CONTENTS, strict=True)]
            await PieceSender(ByteBudget(2**20), 8).send(pieces, write)
            await write(b"end")

        return Pushed(produce, "application/octet-stream", {}, len(WHOLE))

    app = build_app({})
    app.add_route("/answer", answer)
    async with served(Guard(app)) as url:
        yield Served(space, store, folder, f"{url}/answer")


async def test_the_second_answer_is_sent_by_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as service:
        assert await service.answer() == WHOLE
        assert service.space.touched == set(KEYS)
        await service.all_kept()
        monkeypatch.setattr(CachedStore, "get", None)
        monkeypatch.setattr(CachedStore, "stream", None)
        assert await service.answer() == WHOLE
        assert service.space.touched == set()


async def test_copies_that_vanish_are_read_from_the_space(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await service.answer()
        await service.all_kept()
        gone = service.throw_out(0, 7, 8, 35, 43)
        assert await service.answer() == WHOLE
        assert service.space.touched == gone
        await service.all_kept()
        assert await service.answer() == WHOLE
        assert service.space.touched == set()
