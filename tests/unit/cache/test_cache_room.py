"""What the read cache holds while objects come in: within its limit, and nothing when their readers have gone."""

import asyncio
import hashlib
import os
from contextlib import aclosing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from imaging_services.adapters.cache.directory import CacheDirectory, Incoming
from imaging_services.adapters.cache.settings import SpaceCacheVariables
from imaging_services.adapters.cache.store import CachedStore, cached
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.domain.manifest.deletion import object_key

MEGABYTE = 1024 * 1024
LIMIT = 64 * MEGABYTE
CONTENT = b"an instance"
LONG = os.urandom(5 * MEGABYTE + 17)


def key_of(content: bytes) -> str:
    return object_key(hashlib.sha256(content).hexdigest())


def kept(folder: Path) -> list[Path]:
    return list(folder.glob("boot-*/*"))


async def with_long(folder: Path) -> tuple[CachedStore, str]:
    """A store whose space has ``LONG``, and its key."""
    space, key = MemoryObjectStore(), key_of(LONG)
    await space.put(key, LONG)
    return CachedStore(space, CacheDirectory(folder, LIMIT), LIMIT // 8), key


def open_files(folder: Path) -> list[str]:
    """Of this process, below the folder."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    files = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [file for file in files if file.startswith(f"{folder}/")]


async def test_what_another_user_has_laid_there_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, settings = MemoryObjectStore(), SpaceCacheVariables(SPACE_CACHE_DIRECTORY=tmp_path)
    CacheDirectory(tmp_path, LIMIT).prepare()
    assert isinstance(await cached(space, settings), CachedStore)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with capture_logs() as lines:
        assert await cached(space, settings) is space
    assert [line["log_level"] for line in lines] == ["warning"]


async def test_a_reader_that_is_cancelled_twice_leaves_nothing(tmp_path: Path) -> None:
    store, key = await with_long(tmp_path)
    reading, wait = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async with aclosing(store.stream(key)) as blocks:  # type: ignore[type-var]  # a generator
            async for _ in blocks:
                reading.set()
                await wait.wait()

    reader = asyncio.create_task(read())
    await reading.wait()
    descriptors = open_files(tmp_path)
    reader.cancel()
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    await store.close()
    assert descriptors
    assert open_files(tmp_path) == []
    assert [path for path in kept(tmp_path) if path.name != key] == []


def test_what_is_not_complete_keeps_to_the_limit_too(tmp_path: Path) -> None:
    directory = CacheDirectory(tmp_path, LIMIT)
    directory.prepare()
    assert directory.keep(key_of(CONTENT), CONTENT)
    incoming = [Incoming(directory, key_of(b"%d" % number)) for number in range(30)]
    written = [one for one in incoming for _ in range(7) if one.write(bytes(MEGABYTE))]
    taken = sum(path.stat().st_size for path in kept(tmp_path))
    assert LIMIT * 3 // 4 < taken <= LIMIT * 17 // 16
    assert len(written) * MEGABYTE == taken  # what was complete made room
    for one in incoming:
        one.close()
    assert kept(tmp_path) == []
    assert any(directory.keep(key_of(LONG), LONG) for _ in range(10))


async def test_a_stream_that_there_is_no_room_for_is_read_on_from_the_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key = await with_long(tmp_path)
    rooms = iter([True, True, False])
    monkeypatch.setattr(CacheDirectory, "reserve", lambda _directory, _size: next(rooms, True))
    with capture_logs() as lines:
        assert b"".join([block async for block in store.stream(key)]) == LONG
    assert next(rooms, None) is None
    assert (kept(tmp_path), lines) == ([], [])
