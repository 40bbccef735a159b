"""Clients that stop reading or sending are given up; those that go on, however slowly, are not."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import Mock

import pytest
import uvloop
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from imaging_services.adapters.http import patience
from imaging_services.adapters.http.files import FileProtocol
from imaging_services.adapters.http.guard import Guard
from imaging_services.apps.dicomweb_ingestion.app import build_app
from support.dicomweb import served

BLOCK, BLOCKS = bytes(1_000_000), 40
POST = b"POST /take HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n"


@asynccontextmanager
async def connected(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[FileProtocol, socket.socket]]:
    """Both ends of a connection to a server."""
    made: asyncio.Queue[FileProtocol] = asyncio.Queue()
    connection_made = FileProtocol.connection_made

    def noticed(protocol: FileProtocol, transport: asyncio.Transport) -> None:
        connection_made(protocol, transport)
        made.put_nowait(protocol)

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(BLOCKS):
            yield BLOCK

    async def streamed(_request: Request) -> Response:
        return StreamingResponse(stream())

    async def whole(_request: Request) -> Response:
        return Response(BLOCK * BLOCKS)

    async def take(request: Request) -> Response:
        return Response(str(len(await request.body())))

    async def slow(request: Request) -> Response:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return Response()

    app = build_app({})
    app.router.routes += [
        Route("/streamed", streamed),
        Route("/whole", whole),
        Route("/slow", slow),
        Route("/take", take, methods=["POST"]),
    ]
    monkeypatch.setattr(FileProtocol, "connection_made", noticed)
    async with served(Guard(app)) as url:
        client = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", int(url.rsplit(":", 1)[1])))
        with client:
            client.settimeout(30)
            yield await asyncio.wait_for(made.get(), 30), client


async def until(protocol: FileProtocol, waits_for: str | None) -> None:
    async with asyncio.timeout(30):
        while (protocol._waiting_for() or (None,))[0] != waits_for:
            await asyncio.sleep(0.01)


async def everything(client: socket.socket) -> bytes:
    def read() -> bytes:
        got = bytearray()
        try:
            while block := client.recv(1 << 20):
                got += block
        except ConnectionResetError:
            pass
        return bytes(got)

    return await asyncio.to_thread(read)


@pytest.mark.parametrize(
    ("sent", "waits_for"),
    [
        (b"", "sent a request"),
        (b"GET /streamed HTTP/1.1\r\nHo", "sent a request"),
        (POST + b"\r\n12345", "sent the rest of its request"),
        (b"GET /streamed HTTP/1.1\r\nHost: here\r\n\r\n", "read its answer"),
        (b"GET /whole HTTP/1.1\r\nHost: here\r\n\r\n", "read its answer"),
        (b"GET /whole HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n", "read its answer"),
    ],
    ids=["nothing", "half a head", "half a body", "reads no stream", "reads no answer", "reads no last answer"],
)
def test_a_client_that_does_nothing_is_given_up(sent: bytes, waits_for: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the loop of the services."""

    async def run() -> None:
        async with connected(monkeypatch) as (protocol, client):
            client.sendall(sent)
            await until(protocol, waits_for)
            with capture_logs() as lines:
                protocol.look()
                protocol.look()
                got = await everything(client)
            assert [line["has_not"] for line in lines if line["event"] == "client given up"] == [waits_for]
            assert len(got) < len(BLOCK) * BLOCKS

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("path", [b"/streamed", b"/whole"])
async def test_a_client_that_reads_slowly_gets_everything(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(monkeypatch) as (protocol, client):
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        await until(protocol, "read its answer")
        taken = 0
        for _ in range(5):
            protocol.look()
            before = protocol._waiting_for()
            async with asyncio.timeout(30):
                while protocol._waiting_for() == before:
                    taken += len(await asyncio.to_thread(client.recv, 1 << 20))
        assert taken + len(await everything(client)) > len(BLOCK) * BLOCKS


async def test_a_client_that_reads_from_the_kernel_only_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes more of an answer when a third of its buffer is free: megabytes for a slow client."""
    async with connected(monkeypatch) as (protocol, client):
        client.sendall(b"GET /whole HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(protocol, "read its answer")
        protocol.transport = Mock(wraps=protocol.transport)
        protocol.transport.get_write_buffer_size.return_value = 1
        seen, taken = protocol._waiting_for(), 0
        while protocol._waiting_for() == seen:
            taken += len(await asyncio.to_thread(client.recv, 1 << 16))
        assert taken < len(BLOCK) * BLOCKS / 2


async def test_a_client_that_sends_slowly_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(monkeypatch) as (protocol, client):
        client.sendall(POST + b"Connection: close\r\n\r\n")
        await until(protocol, "sent the rest of its request")
        for number in range(10):
            protocol.look()
            before = protocol._received
            client.sendall(b"%d" % number)
            async with asyncio.timeout(30):
                while protocol._received == before:
                    await asyncio.sleep(0.001)
        assert (await everything(client)).endswith(b"10")


async def test_nobody_is_given_up_while_the_service_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_LOOK_SECONDS", 0.05)
    looks, look = asyncio.Queue[None](), FileProtocol.look

    def counted(protocol: FileProtocol) -> None:
        look(protocol)
        looks.put_nowait(None)

    monkeypatch.setattr(FileProtocol, "look", counted)
    async with connected(monkeypatch) as (protocol, client):
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(protocol, None)
        for _ in range(4):
            await asyncio.wait_for(looks.get(), 30)
        assert not protocol.transport.is_closing()
