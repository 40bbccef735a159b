"""The read cache: what is kept, what is never served, and that serving goes on without it."""

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from imaging_services.adapters.cache import directory as cache_directory
from imaging_services.adapters.cache.directory import EVICTIONS, FAILURES, CacheDirectory
from imaging_services.adapters.cache.settings import SpaceCacheVariables
from imaging_services.adapters.cache.store import CachedStore, cached
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.s3.folder import FolderStore
from imaging_services.domain.errors import BackendUnavailable, NotFound
from imaging_services.domain.manifest.deletion import object_key
from imaging_services.wiring.archive import open_space

MEGABYTE = 1024 * 1024
LIMIT = 64 * MEGABYTE
CONTENT = b"an instance"
LONG = os.urandom(5 * MEGABYTE + 17)


class Space(MemoryObjectStore):
    """Notes what is asked of it; reads wait for ``gate``, streams break off after ``breaks_after`` blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int, int | None]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.breaks_after: int | None = None

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.asked.append((key, start, length))
        await self.gate.wait()
        return await super().get(key, start, length)

    async def stream(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        number = 0
        async for block in super().stream(key, start, length):
            if number == self.breaks_after:
                raise BackendUnavailable("the connection broke")
            number += 1
            yield block


@pytest.fixture
async def space() -> Space:
    return Space()


def key_of(content: bytes, generation: int = 0) -> str:
    return object_key(hashlib.sha256(content).hexdigest(), generation)


async def opened(space: MemoryObjectStore, folder: Path, limit: int = LIMIT) -> CachedStore:
    settings = SpaceCacheVariables(SPACE_CACHE_DIRECTORY=folder, SPACE_CACHE_BYTES=limit)
    store = await cached(space, settings)
    assert isinstance(store, CachedStore)
    return store


async def put(space: MemoryObjectStore, content: bytes, generation: int = 0) -> str:
    key = key_of(content, generation)
    await space.put(key, content)
    return key


def kept(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.glob("boot-*/*")}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def joined(blocks: AsyncIterator[bytes]) -> bytes:
    return b"".join([block async for block in blocks])


@pytest.mark.parametrize("generation", [0, 3])
async def test_what_was_read_whole_is_not_read_again(space: Space, tmp_path: Path, generation: int) -> None:
    key, store = await put(space, CONTENT, generation), await opened(space, tmp_path)
    assert store.file(key) is None
    assert await store.get(key, 0, len(CONTENT)) == CONTENT
    await until(lambda: store.file(key))
    space.asked.clear()
    assert await store.get(key) == CONTENT
    assert await store.get(key, 3, 4) == CONTENT[3:7]
    assert await joined(store.stream(key, 3)) == CONTENT[3:]
    assert store.file(key) == kept(tmp_path)[key]
    assert space.asked == []
    another = await opened(space, tmp_path)  # a service beside it, or this one after a restart
    assert await another.get(key) == CONTENT
    assert space.asked == []


async def test_a_stream_is_kept_too(space: Space, tmp_path: Path) -> None:
    key, store = await put(space, LONG), await opened(space, tmp_path)
    assert await joined(store.stream(key, 0, len(LONG))) == LONG
    space.asked.clear()
    assert await joined(store.stream(key)) == LONG
    assert await joined(store.stream(key, 5, 2 * MEGABYTE)) == LONG[5 : 5 + 2 * MEGABYTE]
    assert await store.get(key, MEGABYTE, 10) == LONG[MEGABYTE : MEGABYTE + 10]
    assert space.asked == []
    assert store.file(key) == kept(tmp_path)[key]


async def test_ranges_are_read_as_ranges(space: Space, tmp_path: Path) -> None:
    key, store = await put(space, LONG), await opened(space, tmp_path)
    assert await store.get(key, 100, 50) == LONG[100:150]
    assert await store.get(key, 0, 1000) == LONG[:1000]
    assert await store.get(key, 0, 100_000) == LONG[:100_000]
    assert await joined(store.stream(key, 7)) == LONG[7:]
    assert await joined(store.stream(key, 0, 2_000_000)) == LONG[:2_000_000]
    assert space.asked == [(key, 100, 50), (key, 0, 1000), (key, 0, 100_000), (key, 7, None), (key, 0, 2_000_000)]
    await store.close()
    assert kept(tmp_path) == {}


async def test_no_object_longer_than_an_eighth_is_kept(space: Space, tmp_path: Path) -> None:
    content = bytes(8 * MEGABYTE + 1)
    key, store = await put(space, content), await opened(space, tmp_path)
    assert await store.get(key) == content
    assert await store.get(key, 0, len(content)) == content
    assert await joined(store.stream(key)) == content
    assert await joined(store.stream(key, 0, len(content))) == content
    await store.close()
    assert kept(tmp_path) == {}


async def test_other_bytes_than_the_name_says_are_not_kept(space: Space, tmp_path: Path) -> None:
    store = await opened(space, tmp_path)
    key, name = key_of(LONG), "notes.txt"
    await space.put(key, b"?" + LONG[1:])
    await space.put(name, CONTENT)
    assert await joined(store.stream(key)) == b"?" + LONG[1:]
    assert await store.get(key) == b"?" + LONG[1:]
    assert await store.get(name) == CONTENT
    await store.close()
    assert kept(tmp_path) == {}


async def test_many_who_want_the_same_share_one_reading(space: Space, tmp_path: Path) -> None:
    key, store = await put(space, CONTENT), await opened(space, tmp_path)
    space.gate.clear()
    readers = [asyncio.create_task(store.get(key)) for _ in range(20)]
    await until(lambda: len(store._reads._reads) == 1 and store._reads._reads[key, None].waiting == 20)
    readers[0].cancel()
    space.gate.set()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [CONTENT] * 19
    assert len(space.asked) == 1


async def test_nobody_left_ends_a_shared_reading(space: Space, tmp_path: Path) -> None:
    key, store = await put(space, CONTENT), await opened(space, tmp_path)
    space.gate.clear()
    for _ in range(2):
        reader = asyncio.create_task(store.get(key))
        await until(lambda: store._reads._reads)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert store._reads._reads == {}
    space.gate.set()
    assert await store.get(key) == CONTENT


async def test_readers_of_one_stream_go_at_their_own_pace(space: Space, tmp_path: Path) -> None:
    key, store = await put(space, LONG), await opened(space, tmp_path)
    slow, leaving, other = (aiter(store.stream(key)) for _ in range(3))
    first = await anext(slow)
    assert await anext(leaving) == first
    await leaving.aclose()  # type: ignore[attr-defined]
    assert await joined(other) == LONG
    assert first + await joined(slow) == LONG
    assert len(space.asked) == 1
    assert list(kept(tmp_path)) == [key]


async def test_a_stream_that_nobody_reads_on_leaves_nothing(space: Space, tmp_path: Path) -> None:
    key, store = await put(space, LONG), await opened(space, tmp_path)
    stream = store.stream(key)
    assert isinstance(stream, AsyncGenerator)
    async with aclosing(stream) as blocks:
        await anext(blocks)
        space.gate.clear()
    assert [path for path in kept(tmp_path) if path != key] == []
    assert store._growing == {}


async def test_a_stream_that_breaks_is_taken_up_from_the_space(space: Space, tmp_path: Path) -> None:
    key, store = await put(space, LONG), await opened(space, tmp_path)
    space.breaks_after = 3
    assert await joined(store.stream(key)) == LONG
    assert [(start, length) for _, start, length in space.asked] == [(0, None), (3 * MEGABYTE, None)]
    space.breaks_after = 1
    with pytest.raises(BackendUnavailable):
        await joined(store.stream(key))
    assert kept(tmp_path) == {}
    with pytest.raises(NotFound):
        await joined(store.stream(key_of(b"never stored")))


async def test_what_another_boot_left_is_never_served(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is flushed, so after a power cut a file may have its name and length, but not its bytes."""
    boot, folder = tmp_path / "boot_id", tmp_path / "cache"
    boot.write_text("first\n")
    monkeypatch.setattr(cache_directory, "_BOOT_ID", boot)
    key = await put(space, CONTENT)
    store = await opened(space, folder)
    await store.get(key)
    await until(lambda: store.file(key))
    kept(folder)[key].write_bytes(bytes(len(CONTENT)))
    boot.write_text("second\n")
    space.asked.clear()
    store = await opened(space, folder)
    assert kept(folder) == {}
    assert store.file(key) is None
    assert await store.get(key) == CONTENT
    assert len(space.asked) == 1
    await until(lambda: store.file(key))
    assert [path.parent.name for path in kept(folder).values()] == ["boot-second"]


async def test_without_a_boot_id_nothing_is_kept(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_directory, "_BOOT_ID", tmp_path / "absent")
    key, store = await put(space, CONTENT), await opened(space, tmp_path)
    assert await store.get(key) == CONTENT
    assert await joined(store.stream(key)) == CONTENT
    await store.close()
    assert list(tmp_path.iterdir()) == []


async def test_deleting_removes_the_copy(space: Space, tmp_path: Path) -> None:
    key, store = await put(space, CONTENT), await opened(space, tmp_path)
    await store.get(key)
    await until(lambda: store.file(key))
    await store.delete(key)
    assert kept(tmp_path) == {}
    assert store.file(key) is None
    with pytest.raises(NotFound):
        await store.get(key)


async def test_what_the_space_has_is_asked_of_the_space(space: Space, tmp_path: Path) -> None:
    key, store = await put(space, CONTENT), await opened(space, tmp_path)
    await store.get(key)
    await until(lambda: store.file(key))
    del space.objects[key]
    assert await store.head(key) is None
    assert [info async for info in store.list()] == []


async def test_folder_spaces_and_audits_have_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_CACHE_DIRECTORY", str(tmp_path / "cache"))
    folder = FolderStore(tmp_path)
    assert await cached(folder, SpaceCacheVariables(SPACE_CACHE_DIRECTORY=tmp_path / "cache")) is folder
    assert await cached(folder, SpaceCacheVariables()) is folder
    for key, value in {"BUCKET_HOST": "http://127.0.0.1", "BUCKET_PORT": "1", "BUCKET_NAME": "images"}.items():
        (tmp_path / key).write_text(value)
    async with open_space(tmp_path, None) as space:
        assert not isinstance(space, CachedStore)
    assert not (tmp_path / "cache").exists()


async def test_others_may_not_read_the_copies(space: Space, tmp_path: Path) -> None:
    key, store = await put(space, CONTENT), await opened(space, tmp_path / "cache")
    await store.get(key)
    await until(lambda: store.file(key))
    path = kept(tmp_path / "cache")[key]
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_what_was_not_read_for_longest_goes_first(tmp_path: Path) -> None:
    directory = CacheDirectory(tmp_path, MEGABYTE)
    directory.prepare()
    before = EVICTIONS._value.get()
    contents = [bytes([number]) * 32_768 for number in range(40)]
    keys = [key_of(content) for content in contents]
    for number, (key, content) in enumerate(zip(keys, contents, strict=True)):
        assert directory.keep(key, content)
        os.utime(directory.path(key), (number, number))
        if number == 10:
            assert directory.read(keys[0], 0, 1) == b"\0"
        assert sum(path.stat().st_size for path in kept(tmp_path).values()) <= MEGABYTE
    left = set(kept(tmp_path))
    assert EVICTIONS._value.get() - before == 40 - len(left)
    assert left == {keys[0], *keys[-(len(left) - 1) :]}
    assert 24 <= len(left) <= 32


def test_a_reader_keeps_what_is_thrown_out(tmp_path: Path) -> None:
    directory = CacheDirectory(tmp_path, LIMIT)
    directory.prepare()
    key = key_of(LONG)
    assert directory.keep(key, LONG)
    with directory.open(key) or pytest.fail("it is not there") as reader:
        directory.remove(key)
        assert directory.read(key, 0, None) is None
        assert reader.read() == LONG


def test_two_processes_keep_to_the_limit_together(tmp_path: Path) -> None:
    both = [CacheDirectory(tmp_path, MEGABYTE) for _ in range(2)]
    for number in range(80):
        content = number.to_bytes(2) * 8192
        assert both[number % 2].keep(key_of(content), content)
        assert sum(path.stat().st_size for path in kept(tmp_path).values()) <= MEGABYTE // 16 * 18


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    directory = CacheDirectory(tmp_path, LIMIT)
    directory.prepare()
    old, young = (directory.create_partial(key_of(CONTENT)) for _ in range(2))
    os.utime(old[0], (1000, 1000))
    CacheDirectory(tmp_path, LIMIT).prepare()
    assert list(kept(tmp_path).values()) == [young[0]]
    os.close(old[1])
    os.close(young[1])


async def test_serving_goes_on_without_the_directory(space: Space, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no directory")
    before = FAILURES._value.get()
    key, long = await put(space, CONTENT), await put(space, LONG)
    with capture_logs() as lines:
        store = await opened(space, tmp_path / "cache")
        for _ in range(3):
            assert await store.get(key) == CONTENT
            assert await joined(store.stream(long)) == LONG
        await store.close()
    assert [line["event"] for line in lines] == ["space cache cannot be used, objects are read from the space"]
    assert FAILURES._value.get() > before


async def test_serving_goes_on_when_the_disk_is_full(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, store = await put(space, LONG), await opened(space, tmp_path)
    write, room = os.write, 2 * MEGABYTE

    def limited(descriptor: int, block: memoryview) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        room -= len(block)
        return write(descriptor, block)

    monkeypatch.setattr(os, "write", limited)
    with capture_logs() as lines:
        assert await joined(store.stream(key)) == LONG
        assert await joined(store.stream(key)) == LONG
        assert await store.get(key) == LONG
    assert [line["log_level"] for line in lines] == ["warning"]
    assert kept(tmp_path) == {}
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(cache_directory, "_RETRY_SECONDS", 0.0)
    with capture_logs() as lines:
        assert await joined(store.stream(key)) == LONG
    assert [line["event"] for line in lines] == ["space cache works again"]
    assert list(kept(tmp_path)) == [key]
