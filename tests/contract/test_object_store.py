"""What every storage space does alike: real S3, real Azure Blob, a local folder, the twin in memory, and a cache."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from imaging_services.adapters.cache.directory import CacheDirectory
from imaging_services.adapters.cache.store import CachedStore
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.s3.space import open_space
from imaging_services.domain.errors import NotFound
from imaging_services.domain.ports import ObjectInfo, ObjectStore

KEY = "0" * 64 + ".dcm"
MEGABYTE = 1024 * 1024


@pytest.fixture(params=["memory", "cache", "folder", "s3", "azure"])
async def space(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    store = _open(request, tmp_path)
    yield store
    await store.close()


def _open(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryObjectStore()
    if request.param == "cache":
        return CachedStore(MemoryObjectStore(), CacheDirectory(tmp_path / "cache", 64 * MEGABYTE), 8 * MEGABYTE)
    config, secret = tmp_path / "config", tmp_path / "secret"
    config.mkdir()
    secret.mkdir()
    if request.param == "folder":
        (tmp_path / "objects").mkdir()
        (config / "LOCAL_STORAGE_PATH").write_text(f"{tmp_path / 'objects'}\n")
        return open_space(config, secret)
    if request.param == "azure":
        azurite = request.getfixturevalue("azurite_server")
        return open_space(azurite.write_keys(config, request.getfixturevalue("container")), secret)
    server = request.getfixturevalue("s3_server")
    url = urlsplit(server.endpoint)
    for directory, values in (
        (
            config,
            {
                "BUCKET_HOST": f"http://{url.hostname}",
                "BUCKET_PORT": str(url.port),
                "BUCKET_REGION": "us-east-1",
                "BUCKET_SUBREGION": "",
                "BUCKET_NAME": request.getfixturevalue("bucket"),
            },
        ),
        (secret, {"AWS_ACCESS_KEY_ID": server.access_key_id, "AWS_SECRET_ACCESS_KEY": server.secret_access_key}),
    ):
        for name, value in values.items():
            (directory / name).write_text(value + "\n")
    return open_space(config, secret)


async def _joined(stream: AsyncIterator[bytes]) -> bytes:
    blocks = [block async for block in stream]
    assert all(0 < len(block) <= MEGABYTE for block in blocks)
    return b"".join(blocks)


async def test_what_is_put_is_got(space: ObjectStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    await space.put(KEY, b"content")
    assert await space.get(KEY) == b"content"
    info = await space.head(KEY)
    assert info is not None
    assert (info.key, info.size) == (KEY, 7)
    assert before < info.last_modified < before + timedelta(seconds=30)


@pytest.mark.parametrize("length", [0, 1, MEGABYTE, 3 * MEGABYTE + 1])
async def test_bytes_of_any_length(space: ObjectStore, length: int) -> None:
    content = os.urandom(length)
    await space.put(KEY, content)
    assert await space.get(KEY) == content
    assert await _joined(space.stream(KEY)) == content


async def test_a_file_is_put_in_parts(space: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom(MEGABYTE) * 20
    path = tmp_path / "large"
    path.write_bytes(content)
    await space.put(KEY, path)
    assert path.exists()
    digest = hashlib.sha256()
    async for block in space.stream(KEY):
        digest.update(block)
    assert digest.digest() == hashlib.sha256(content).digest()
    assert await space.get(KEY, 19 * MEGABYTE + 5, 10) == content[5:15]


@pytest.mark.parametrize(
    ("start", "length"), [(0, 0), (0, 4), (3, 4), (3, None), (8, 100), (10, 5), (10, None), (50, 5), (50, None)]
)
async def test_ranges(space: ObjectStore, start: int, length: int | None) -> None:
    content = b"0123456789"
    await space.put(KEY, content)
    expected = content[start : None if length is None else start + length]
    assert await space.get(KEY, start, length) == expected
    assert await _joined(space.stream(KEY, start, length)) == expected


async def test_absent_objects(space: ObjectStore) -> None:
    assert await space.head(KEY) is None
    with pytest.raises(NotFound):
        await space.get(KEY)
    with pytest.raises(NotFound):
        await space.get(KEY, 5, 5)
    with pytest.raises(NotFound):
        await anext(aiter(space.stream(KEY)))
    await space.delete(KEY)


async def test_putting_again_replaces(space: ObjectStore) -> None:
    await space.put(KEY, b"one")
    await space.put(KEY, b"another")
    assert await space.get(KEY) == b"another"


async def test_the_same_key_at_once(space: ObjectStore) -> None:
    await asyncio.gather(*(space.put(KEY, b"x" * 500_000) for _ in range(10)))
    assert await space.get(KEY) == b"x" * 500_000


async def test_objects_are_listed_and_deleted(space: ObjectStore) -> None:
    keys = {f"{number:064x}.dcm" for number in range(12)}
    await asyncio.gather(*(space.put(key, key.encode()) for key in keys))
    listed: list[ObjectInfo] = [info async for info in space.list()]
    assert {info.key for info in listed} == keys
    assert all(info.size == 68 for info in listed)
    await space.delete(min(keys))
    assert {info.key async for info in space.list()} == keys - {min(keys)}


async def test_objects_are_listed_in_order_of_their_keys(space: ObjectStore) -> None:
    keys = [f"{number * 0x11:02x}{'0' * 62}{end}.dcm" for number in range(16) for end in ("", "-1", "-10")]
    await asyncio.gather(*(space.put(key, b"x") for key in keys))
    assert [info.key async for info in space.list()] == sorted(keys)
    for after in (sorted(keys)[20], "8", "ff", "zz"):
        assert [info.key async for info in space.list(after)] == [key for key in sorted(keys) if key > after]


async def test_check_leaves_nothing(space: ObjectStore) -> None:
    await space.check()
    assert [info async for info in space.list()] == []


async def test_the_bucket_name_is_what_events_report(space: ObjectStore) -> None:
    assert space.bucket_name is None or space.bucket_name == "memory" or space.bucket_name.startswith("test-")
