"""Requests to the API server: paths, pages, credentials, and what each answer means."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from imaging_operator.cluster import Cluster, connect
from imaging_operator.connection import Connection
from imaging_operator.errors import ApiUnavailable, Conflict, Forbidden, ReconcileError, Wrong
from imaging_operator.resources import CONFIG_MAP, DEPLOYMENT, KNATIVE_SERVICE, SECRET, Resource

Json = dict[str, Any]


def cluster(handle: Any) -> Cluster:
    return Cluster(httpx.AsyncClient(base_url="http://kubernetes", transport=httpx.MockTransport(handle)))


def answering(code: int, content: Json | bytes) -> Cluster:
    if isinstance(content, bytes):
        return cluster(lambda request: httpx.Response(code, content=content))
    return cluster(lambda request: httpx.Response(code, json=content))


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "subresource", "path"),
    [
        (SECRET, "ns", "s", None, "/api/v1/namespaces/ns/secrets/s"),
        (SECRET, None, None, None, "/api/v1/secrets"),
        (DEPLOYMENT, "ns", None, None, "/apis/apps/v1/namespaces/ns/deployments"),
        (DEPLOYMENT, "ns", "d", "status", "/apis/apps/v1/namespaces/ns/deployments/d/status"),
    ],
)
def test_paths(resource: Resource, namespace: str | None, name: str | None, subresource: str | None, path: str) -> None:
    assert resource.path(namespace, name, subresource) == path


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, Wrong),
        (401, Forbidden),
        (403, Forbidden),
        (409, Conflict),
        (422, Wrong),
        (429, ApiUnavailable),
        (500, ApiUnavailable),
        (503, ApiUnavailable),
    ],
)
@pytest.mark.parametrize("content", [{"message": "because"}, b"<html>"])
async def test_what_answers_mean(code: int, error: type[ReconcileError], content: Json | bytes) -> None:
    with pytest.raises(error):
        await answering(code, content).get(SECRET, "ns", "s")


@pytest.mark.parametrize(
    "message",
    [
        'configmaps "x" is forbidden: unable to create new content in namespace ns because it is being terminated',
        'brokers.x.dev "x" is forbidden: create not allowed while custom resource definition is terminating',
    ],
    ids=["namespace", "definition"],
)
async def test_what_ends_is_a_conflict(message: str) -> None:
    with pytest.raises(Conflict):
        await answering(403, {"message": message}).create(CONFIG_MAP, "ns", {"metadata": {"name": "x"}})


async def test_absence_is_an_answer() -> None:
    away = answering(404, {"message": "not found"})
    assert await away.get(SECRET, "ns", "s") is None
    assert await away.list(SECRET, "ns") == []
    await away.delete(SECRET, "ns", "s", "uid")
    with pytest.raises(ReconcileError):
        await away.apply(CONFIG_MAP, "ns", {"metadata": {"name": "x"}})


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout("late"), httpx.RemoteProtocolError("cut")]
)
async def test_a_server_that_is_away_is_said_so(error: httpx.HTTPError) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(ApiUnavailable, match=type(error).__name__):
        await cluster(handle).get(SECRET, "ns", "s")


async def test_an_answer_that_is_no_json_is_not_believed() -> None:
    with pytest.raises(ApiUnavailable):
        await answering(200, b"<html>").get(SECRET, "ns", "s")


async def test_lists_are_read_page_by_page() -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("continue", ""))
        number = len(asked)
        page = {"metadata": {"continue": "more" if number < 3 else ""}, "items": [{"metadata": {"name": str(number)}}]}
        return httpx.Response(200, json=page)

    found = await cluster(handle).list(DEPLOYMENT, None, {"a": "b"})
    assert [each["metadata"]["name"] for each in found] == ["1", "2", "3"]
    assert {(each["apiVersion"], each["kind"]) for each in found} == {("apps/v1", "Deployment")}
    assert asked == ["", "more", "more"]


async def test_applying_is_server_side_and_forced() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=json.loads(request.content))

    await cluster(handle).apply(CONFIG_MAP, "ns", {"metadata": {"name": "c"}})
    assert seen[0].method == "PATCH"
    assert seen[0].headers["Content-Type"] == "application/apply-patch+yaml"
    assert dict(seen[0].url.params) == {"fieldManager": "imaging-ingestion-operator", "force": "true"}


async def test_only_the_very_object_is_deleted() -> None:
    bodies: list[Json] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json={})

    await cluster(handle).delete(CONFIG_MAP, "ns", "c", "uid-1", foreground=True)
    assert bodies == [{"propagationPolicy": "Foreground", "preconditions": {"uid": "uid-1"}}]


async def test_what_is_served() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/apis/apps/v1":
            return httpx.Response(200, json={"resources": [{"name": "deployments"}, {"name": "deployments/status"}]})
        return httpx.Response(404, json={"message": "not found"})

    assert await cluster(handle).served([DEPLOYMENT, KNATIVE_SERVICE]) == frozenset({DEPLOYMENT})


async def test_a_token_is_read_anew_for_each_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    connection = Connection("http://127.0.0.1:1", token_file=token)
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, json={})

    async with connect(connection, 5) as found:
        client = found._client
        client._transport = httpx.MockTransport(handle)
        client._mounts = {}
        for value in ("one", "two"):
            token.write_text(value + "\n")
            await found.get(SECRET, "ns", "s")
    assert seen == ["Bearer one", "Bearer two"]


async def test_a_token_that_cannot_be_read_is_no_crash(tmp_path: Path) -> None:
    connection = Connection("http://127.0.0.1:1", token_file=tmp_path / "absent")
    async with connect(connection, 5) as found:
        with pytest.raises(ApiUnavailable):
            await found.get(SECRET, "ns", "s")
