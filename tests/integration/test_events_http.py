"""Outgoing HTTP and the HTTP ingress, against a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.adapters.http.cloudevents import event_router
from imaging_services.domain.errors import (
    BackendUnavailable,
    Conflict,
    DeadlineExceeded,
    ImagingError,
    InvalidInput,
    NotFound,
    OutOfResources,
    Refused,
)
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.http_binding import encode_http_batch, encode_http_structured
from support.events import an_event
from support.http_server import serving

_BLOCK = bytes(range(256)) * 256


class Peer:
    """Remembers requests; answers as the path says."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.requests: list[tuple[str, dict[str, str], int]] = []
        self.app.add_api_route("/{path:path}", self.answer, methods=["GET", "PUT", "POST"])

    async def answer(self, request: Request, path: str) -> Response:
        length = 0
        async for block in request.stream():
            length += len(block)
        self.requests.append((request.url.path, dict(request.headers), length))
        name, _, argument = path.partition("/")
        if name == "status":
            return Response(f"because\n of {argument}", int(argument), headers={"location": "http://elsewhere/"})
        if name == "slow":
            await asyncio.sleep(float(argument))
        if name == "long":
            return StreamingResponse(_BLOCK for _ in range(int(argument)))
        if name == "busy" and len(self.requests) == 1:
            return Response(status_code=int(argument), headers={"retry-after": "0"})
        return Response(b"fine", headers={"X-Answer": "yes"})


@pytest.fixture
async def peer() -> AsyncIterator[tuple[Peer, str]]:
    peer = Peer()
    async with serving(peer.app) as url:
        yield peer, url


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, Refused),
        (307, Refused),
        (400, Refused),
        (401, Refused),
        (403, Refused),
        (404, NotFound),
        (408, BackendUnavailable),
        (409, Conflict),
        (410, NotFound),
        (413, Refused),
        (422, Refused),
        (425, BackendUnavailable),
        (429, BackendUnavailable),
        (500, BackendUnavailable),
        (501, Refused),
        (502, BackendUnavailable),
        (503, BackendUnavailable),
        (504, BackendUnavailable),
    ],
)
async def test_each_status_means_something(peer: tuple[Peer, str], status: int, expected: type[ImagingError]) -> None:
    async with HttpTarget(peer[1]) as target:
        with pytest.raises(expected, match=str(status)) as raised:
            await target.request("POST", f"/status/{status}?PatientName=Doe", content=b"x")
        assert "Doe" not in str(raised.value)
        accepted = await target.request("POST", f"/status/{status}", accept=frozenset({status}))
        assert accepted.status == status


async def test_a_body_streams_both_ways(peer: tuple[Peer, str]) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield _BLOCK

    async with HttpTarget(peer[1]) as target:
        reply = await target.request("POST", "/in", content=blocks())
        assert (reply.body, reply.headers["x-answer"]) == (b"fine", "yes")
        assert peer[0].requests[0][2] == 300 * len(_BLOCK)
        async with target.stream("GET", "/long/300") as stream:
            assert sum([len(block) async for block in stream.blocks]) == 300 * len(_BLOCK)
        with pytest.raises(OutOfResources):
            await target.request("GET", "/long/300", max_reply=1024)


async def test_credentials_go_to_the_target_and_nowhere_else(peer: tuple[Peer, str]) -> None:
    other = Peer()
    async with serving(other.app) as elsewhere:
        options = HttpOptions(authorization="Bearer abc", basic=("u", "p"), headers={"X-Site": "north"})
        async with HttpTarget(peer[1], options) as target:
            await target.request("GET", "/own")
            await target.request("GET", f"{peer[1]}/own/absolute")
            await target.request("GET", f"{elsewhere}/foreign")
        async with HttpTarget(peer[1], HttpOptions(basic=("u", "p"))) as target:
            await target.request("GET", "/basic")
    sent = [headers.get("authorization") for _, headers, _ in peer[0].requests]
    assert sent == ["Bearer abc", "Bearer abc", "Basic dTpw"]
    assert "authorization" not in other.requests[0][1]
    assert peer[0].requests[0][1]["x-site"] == "north"
    assert "abc" not in repr(options)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_short_retry_after_is_obeyed(peer: tuple[Peer, str], status: int) -> None:
    async with HttpTarget(peer[1]) as target:
        assert (await target.request("PUT", f"/busy/{status}", content=b"x")).status == 200
    assert len(peer[0].requests) == 2


async def test_no_answer_and_no_listener(peer: tuple[Peer, str]) -> None:
    async with HttpTarget(peer[1], HttpOptions(timeout_seconds=0.2)) as target:
        with pytest.raises(DeadlineExceeded):
            await target.request("GET", "/slow/1")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with HttpTarget(f"http://127.0.0.1:{bound.getsockname()[1]}") as target:
            with pytest.raises(BackendUnavailable):
                await target.request("GET")


async def test_a_peer_that_hangs_up_is_unavailable() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncut")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server, HttpTarget(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as target:
        with pytest.raises(BackendUnavailable):
            await target.request("GET")


@pytest.mark.parametrize("url", ["", "ftp://host/", "http://", "north:8080", "http://[::1"])
def test_a_wrong_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidInput, match="URL"):
        HttpTarget(url)


async def test_the_ingress_takes_batches_and_says_what_is_wrong() -> None:
    taken: list[str] = []

    async def handle(event: CloudEvent) -> None:
        if event.type == "refused":
            raise Refused("not here")
        if event.type == "later":
            raise BackendUnavailable("database restarts")
        taken.append(event.id)

    app = FastAPI()
    app.include_router(event_router(handle))
    good, refused, later = an_event(), an_event("refused"), an_event("later")
    async with serving(app) as url, HttpTarget(url) as target:
        everything = frozenset(range(300, 600))

        async def post(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
            reply = await target.request("POST", "/", headers=headers, content=body, accept=everything)
            return reply.status, reply.body

        assert (await post(*encode_http_batch([good, good])))[0] == 204
        assert taken == [good.id, good.id]
        assert (await post(*encode_http_structured(refused)))[0] == 422
        status, body = await post(*encode_http_batch([refused, later, good]))
        assert (status, b"database restarts" in body) == (503, True)
        assert (await post({"content-type": "text/plain"}, b"hello"))[0] == 400
