"""What every spool does alike, and what those on disk do besides."""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from imaging_services.adapters.files import spool as spool_module
from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.memory.spools import MemorySpools
from imaging_services.domain.errors import BackendUnavailable, OutOfResources, SettingsError
from imaging_services.domain.ports import Spools

LIMIT = 1000


@pytest.fixture(params=["memory", "files"])
def spools(request: pytest.FixtureRequest, tmp_path: Path) -> Spools:
    return MemorySpools() if request.param == "memory" else FileSpools(tmp_path, memory_limit=LIMIT)


@pytest.mark.parametrize("length", [0, 1, LIMIT, LIMIT + 1, 3_000_000])
async def test_what_is_written_is_the_body(spools: Spools, length: int) -> None:
    content = os.urandom(length)
    async with spools.open() as spool:
        for position in range(0, length, 977):
            await spool.write(content[position : position + 977])
        assert spool.size == length
        body = await spool.body()
        assert (body if isinstance(body, bytes) else body.read_bytes()) == content
        assert await spool.digest() == hashlib.sha256(content).hexdigest()
        assert await spool.body() == body


async def test_many_at_once_do_not_mix(spools: Spools) -> None:
    async def one(number: int) -> str:
        async with spools.open() as spool:
            for _ in range(50):
                await spool.write(bytes([number]) * 100)
                await asyncio.sleep(0)
            return await spool.digest()

    digests = await asyncio.gather(*map(one, range(10)))
    assert digests == [hashlib.sha256(bytes([number]) * 5000).hexdigest() for number in range(10)]


async def test_short_bodies_stay_in_memory(tmp_path: Path) -> None:
    async with FileSpools(tmp_path, memory_limit=LIMIT).open() as spool:
        await spool.write(bytes(LIMIT))
        assert isinstance(await spool.body(), bytes)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [None, ValueError("boom"), asyncio.CancelledError()])
async def test_files_vanish_in_every_case(tmp_path: Path, error: BaseException | None) -> None:
    with contextlib.suppress(ValueError, asyncio.CancelledError):
        async with FileSpools(tmp_path, memory_limit=LIMIT).open() as spool:
            await spool.write(bytes(LIMIT + 1))
            path = await spool.body()
            assert isinstance(path, Path)
            assert path.stat().st_size == LIMIT + 1
            assert path.stat().st_mode & 0o077 == 0  # nobody else reads patients' images
            if error:
                raise error
    assert not list(tmp_path.iterdir())


async def test_a_cancelled_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, begun, go_on = spool_module._write_all, threading.Event(), threading.Event()

    def write(file: object, block: bytes) -> None:
        begun.set()
        assert go_on.wait(30)
        real(file, block)

    monkeypatch.setattr(spool_module, "_write_all", write)

    async def receive() -> None:
        async with FileSpools(tmp_path, memory_limit=LIMIT).open() as spool:
            await spool.write(bytes(LIMIT + 1))

    task = asyncio.create_task(receive())
    assert await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir())  # it is being written still
    go_on.set()
    async with asyncio.timeout(30):
        while list(tmp_path.iterdir()):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, OutOfResources), (errno.EDQUOT, OutOfResources), (errno.EIO, BackendUnavailable)],
)
async def test_disk_failures_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(spool_module, "_write_all", fail)
    with pytest.raises(expected):
        async with FileSpools(tmp_path, memory_limit=LIMIT).open() as spool:
            await spool.write(bytes(LIMIT + 1))
    assert not list(tmp_path.iterdir())


async def test_a_disk_that_is_really_full() -> None:
    full = Path("/dev/full")
    with full.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space") as caught:
        spool_module._write_all(file, b"x")
    assert isinstance(spool_module._converted(caught.value, full), OutOfResources)


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_kept(tmp_path: Path) -> None:
    dead, living, young = (tmp_path / f"imaging-instance-{name}.spool" for name in ("dead", "living", "young"))
    for path in (dead, living, young, tmp_path / "other"):
        path.write_bytes(b"x")
    for path in (dead, living):
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    with living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        FileSpools(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {living.name, young.name, "other"}


def test_the_directory_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOL_DIR", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match="SPOOL_DIR"):
        FileSpools()
