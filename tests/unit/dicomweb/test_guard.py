"""What surrounds every request: correlation id, admission, access log, broken answers."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import capture_logs

from imaging_services.adapters.http.guard import Guard
from imaging_services.adapters.http.server import serve
from imaging_services.apps.dicomweb_ingestion.app import NamedRoute, build_app
from imaging_services.apps.dicomweb_ingestion.responses import Pushed, Write
from imaging_services.domain.errors import BackendUnavailable, NotFound, OutOfResources, SettingsError
from support.dicomweb import served


def app_with(answer: Any) -> Any:
    app = build_app({})
    app.router.routes.append(NamedRoute("/patients/{name}", answer))
    return app


async def test_the_log_names_the_route_and_not_the_patient() -> None:
    async def answer(request: Request) -> Response:
        return Response("hello")

    async with served(Guard(app_with(answer))) as url, httpx.AsyncClient() as client:
        with capture_logs() as lines:
            got = await client.get(f"{url}/patients/DOE?PatientName=DOE", headers={"x-request-id": "abc.1"})
    assert got.headers["x-correlation-id"] == "abc.1"
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["route"], line["method"], line["status"], line["bytes"]) == ("/patients/{name}", "GET", 200, 5)
    assert "DOE" not in str(lines)


async def test_a_harmful_correlation_id_is_replaced() -> None:
    async def answer(request: Request) -> Response:
        return Response("hello")

    async with served(Guard(app_with(answer))) as url, httpx.AsyncClient() as client:
        got = await client.get(f"{url}/patients/DOE", headers={"x-correlation-id": "a b<c>"})
    assert got.headers["x-correlation-id"] != "a b<c>"


async def test_requests_beyond_the_limit_are_told_to_come_back() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Response:
        entered.set()
        await leave.wait()
        return Response("hello")

    async with served(Guard(app_with(answer), concurrency=1)) as url, httpx.AsyncClient() as client:
        first = asyncio.create_task(client.get(f"{url}/patients/a"))
        await entered.wait()
        second = await client.get(f"{url}/patients/b")
        leave.set()
        assert (await first).status_code == 200
        third = await client.get(f"{url}/patients/c")
    assert (second.status_code, second.headers["retry-after"]) == (503, "1")
    assert second.headers["content-type"] == "application/problem+json"
    assert third.status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (NotFound("no such thing"), 404, None),
        (BackendUnavailable("the store is away"), 503, "2"),
        (OutOfResources("full"), 503, "2"),
        (ZeroDivisionError("secret"), 500, None),
    ],
)
async def test_errors_become_problem_documents(error: Exception, status: int, retry: str | None) -> None:
    async def answer(request: Request) -> Response:
        raise error

    async with served(Guard(app_with(answer))) as url, httpx.AsyncClient() as client:
        got = await client.get(f"{url}/patients/a")
    assert got.status_code == status
    assert got.headers["content-type"] == "application/problem+json"
    assert got.headers.get("retry-after") == retry
    assert "secret" not in got.text
    assert "Traceback" not in got.text


@pytest.mark.parametrize("length", [None, 10], ids=["chunked", "length"])
async def test_an_answer_that_fails_in_the_middle_is_cut_off(length: int | None) -> None:
    async def produce(write: Write) -> None:
        await write(b"12345")
        raise NotFound("vanished")

    async def answer(request: Request) -> Response:
        return Pushed(produce, "application/octet-stream", {}, length)

    async with served(Guard(app_with(answer))) as url, httpx.AsyncClient() as client:
        with capture_logs() as lines, pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{url}/patients/a")
    assert [line["bytes"] for line in lines if line["event"] == "answer broken off"] == [5]


async def test_a_client_that_goes_away_ends_the_work() -> None:
    ended = asyncio.Event()

    async def produce(write: Write) -> None:
        try:
            await write(b"1")
            await asyncio.sleep(30)
        finally:
            ended.set()

    async def answer(request: Request) -> Response:
        return Pushed(produce, "text/plain", {})

    async with served(Guard(app_with(answer))) as url, httpx.AsyncClient() as client:
        async with client.stream("GET", f"{url}/patients/a") as got:
            async for _ in got.aiter_raw():
                break
        await asyncio.wait_for(ended.wait(), 20)


async def test_requests_under_way_are_finished_before_the_server_stops() -> None:
    entered, stop = asyncio.Event(), asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def answer(request: Request) -> Response:
        entered.set()
        await asyncio.sleep(0.2)
        return Response("done")

    server = asyncio.create_task(
        serve(app_with(answer), "127.0.0.1", 0, stop, drain_seconds=5, listening=port.set_result)
    )
    async with httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.get(f"http://127.0.0.1:{await port}/patients/a"))
        await entered.wait()
        stop.set()
        assert (await asking).text == "done"
    await server


async def test_a_taken_port_is_a_settings_error() -> None:
    taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    first = asyncio.create_task(serve(build_app({}), "127.0.0.1", 0, stop, listening=taken.set_result))
    with pytest.raises(SettingsError, match="cannot listen"):
        await serve(build_app({}), "127.0.0.1", await taken, stop)
    stop.set()
    await first


async def test_only_origins_that_are_named_may_read_from_a_browser() -> None:
    async def fails(request: Request) -> Response:
        raise RuntimeError("secret")

    app = build_app({}, ["https://viewer.example.org"])
    app.router.routes.append(NamedRoute("/fails", fails))
    async with served(Guard(app)) as url, httpx.AsyncClient() as client:
        known = await client.get(f"{url}/x", headers={"origin": "https://viewer.example.org"})
        other = await client.get(f"{url}/x", headers={"origin": "https://elsewhere.example.org"})
        failed = await client.get(f"{url}/fails", headers={"origin": "https://viewer.example.org"})
    assert known.headers["access-control-allow-origin"] == "https://viewer.example.org"
    assert (failed.status_code, failed.json()["status"]) == (500, 500)
    assert failed.headers["access-control-allow-origin"] == "https://viewer.example.org"
    assert "access-control-allow-origin" not in other.headers
