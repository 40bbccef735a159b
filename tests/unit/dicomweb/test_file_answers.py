"""Answers from a folder space are sent by the kernel; they are the same bytes, and end visibly when they end early."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import uvloop
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from imaging_services.adapters.http import files
from imaging_services.adapters.http.guard import Guard
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.s3.folder import FolderStore
from imaging_services.apps.dicomweb_ingestion.app import NamedRoute, build_app
from imaging_services.apps.dicomweb_ingestion.pieces import Piece, PieceSender, Write
from imaging_services.apps.dicomweb_ingestion.responses import Pushed
from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from imaging_services.domain.retrieve.stored_file import StoredFile
from support.dicomweb import served

SIZES = [1, 200_000, 3_000_000, 0, 70_000] * 9


def a_file(store: ObjectStore, key: str, size: int) -> StoredFile:
    place = InstanceLocation(
        "1", "1.1", "1.1.1", "1.2", "1.2.840.10008.1.2.1", "north", key, None, size, None, None, datetime.now(UTC)
    )
    return StoredFile(store, place, size)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    for number, size in enumerate(SIZES):
        (tmp_path / f"{number}.dcm").write_bytes(bytes([number]) * size)
    return FolderStore(tmp_path)


def pieces_of(store: ObjectStore) -> list[Piece]:
    return [
        Piece(f"<{number}>".encode(), a_file(store, f"{number}.dcm", size), 0, size)
        for number, size in enumerate(SIZES)
    ]


EXPECTED = b"".join(f"<{number}>".encode() + bytes([number]) * size for number, size in enumerate(SIZES)) + b"end"


@asynccontextmanager
async def serving(pieces: list[Piece]) -> AsyncIterator[str]:
    """URL of an answer with these pieces."""

    async def answer(_request: Request) -> Response:
        async def produce(write: Write) -> None:
            await PieceSender(ByteBudget(0), 8).send(pieces, write)
            await write(b"end")

        return Pushed(produce, "application/octet-stream", {}, sum(piece.sent for piece in pieces) + 3)

    app = build_app({})
    app.router.routes.append(NamedRoute("/answer", answer))
    async with served(Guard(app)) as url:
        yield f"{url}/answer"


async def test_files_are_sent_without_being_read(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderStore, "get", None)
    monkeypatch.setattr(FolderStore, "stream", None)
    async with serving(pieces_of(store)) as url, httpx.AsyncClient() as client:
        for _ in range(2):  # on one connection
            got = await client.get(url)
            assert got.content == EXPECTED


async def test_files_and_what_was_read_keep_their_order(store: FolderStore) -> None:
    memory = MemoryObjectStore()
    memory.objects["m"] = b"\x01\x02"
    read = Piece(b"(", a_file(memory, "m", 2), 0, 2, swap=2)
    file = Piece(b"<", a_file(store, "1.dcm", 200_000), 7, 100)
    async with serving([read, file, file, read]) as url, httpx.AsyncClient() as client:
        got = await client.get(url)
    assert got.content == b"(\x02\x01" + 2 * (b"<" + bytes([1]) * 100) + b"(\x02\x01" + b"end"


async def test_a_file_system_without_sendfile_is_read(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object) -> int:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(os, "sendfile", refused)
    async with serving(pieces_of(store)) as url, httpx.AsyncClient() as client:
        assert (await client.get(url)).content == EXPECTED


async def test_a_client_that_reads_late_gets_everything(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    waited, until_writable = asyncio.Event(), files._Transmission._until_writable

    async def noticed(transmission: files._Transmission, loop: asyncio.AbstractEventLoop) -> None:
        waited.set()
        await until_writable(transmission, loop)

    monkeypatch.setattr(files._Transmission, "_until_writable", noticed)
    async with serving(pieces_of(store)) as url, httpx.AsyncClient() as client, client.stream("GET", url) as got:
        async with asyncio.timeout(60):
            await waited.wait()  # the connection is full, and no thread waits for the client
        assert b"".join([block async for block in got.aiter_raw()]) == EXPECTED


@pytest.mark.parametrize("harm", ["gone", "shorter"])
async def test_an_answer_ends_visibly_where_a_file_is_not_what_it_was(store: FolderStore, harm: str) -> None:
    path = store.file("7.dcm")
    path.unlink() if harm == "gone" else path.write_bytes(b"short")
    async with serving(pieces_of(store)) as url, httpx.AsyncClient() as client:
        with capture_logs() as lines, pytest.raises(httpx.RemoteProtocolError):
            await client.get(url)
    assert [line["event"] for line in lines] == ["answer broken off", "request"]


@pytest.mark.parametrize(("harm", "status"), [("gone", 404), ("shorter", 503)])
async def test_before_the_first_byte_there_is_a_status(store: FolderStore, harm: str, status: int) -> None:
    path = store.file("1.dcm")
    path.unlink() if harm == "gone" else path.write_bytes(b"short")
    async with serving(pieces_of(store)[1:]) as url, httpx.AsyncClient() as client:
        assert (await client.get(url)).status_code == status


async def test_descriptors_are_given_back_when_the_client_leaves(store: FolderStore) -> None:
    async with serving(pieces_of(store)) as url:
        place = urlsplit(url)
        before = _descriptors()
        for _ in range(3):
            with socket.create_connection((place.hostname, place.port)) as client:
                client.sendall(f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
                assert await asyncio.to_thread(client.recv, 1000)
        async with asyncio.timeout(30):
            while _descriptors() > before:
                await asyncio.sleep(0.02)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_client_that_has_stopped_reading_is_given_up(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_STALLED_SECONDS", 0.3)
    async with serving(pieces_of(store)) as url:
        place, before = urlsplit(url), _descriptors()
        with capture_logs() as lines, socket.create_connection((place.hostname, place.port)) as client:
            client.sendall(f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
            async with asyncio.timeout(60):
                while len(lines) < 2 or _descriptors() > before + 1:  # the client's own
                    await asyncio.sleep(0.02)
    assert [line["event"] for line in lines] == ["client went away", "request"]


def test_a_client_that_left_before_its_files_is_no_error(store: FolderStore) -> None:
    """On the loop of the services, whose transports can be asked for nothing once they are closed."""

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.sleep(0.1)
        segment = files.Segment(b"", store.file("0.dcm"), 0, 1)
        await send({"type": files.FILES, "segments": [segment], "length": 1})

    async def left() -> None:
        async with served(Guard(late)) as url:
            place = urlsplit(url)
            with socket.create_connection((place.hostname, place.port)) as client:
                client.sendall(f"GET / HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
                assert await asyncio.to_thread(client.recv, 1000)
            async with asyncio.timeout(60):
                while len(lines) < 2:
                    await asyncio.sleep(0.02)

    with capture_logs() as lines, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(left())
    assert [line["event"] for line in lines] == ["client went away", "request"]


async def test_a_backend_that_refuses_is_not_taken_for_a_client_that_left() -> None:
    async def refused(scope: Scope, receive: Receive, send: Send) -> None:
        raise ConnectionRefusedError("the database")

    async with served(Guard(refused)) as url, httpx.AsyncClient() as client:
        with capture_logs() as lines:
            await client.get(url)
    assert [line["event"] for line in lines] == ["answer broken off", "request"]
