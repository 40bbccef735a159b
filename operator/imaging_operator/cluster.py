"""Requests to the API server: the only module that makes them. Why no client library: docs/decisions.

Objects are JSON as the API defines it; nothing here looks into them. Errors are ours: ``ApiUnavailable``,
``Forbidden``, ``Conflict``, ``Wrong``. No object's content is ever logged.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson

from imaging_operator.connection import Connection
from imaging_operator.errors import ApiUnavailable, Conflict, Forbidden, NotYet, ReconcileError, Wrong
from imaging_operator.metrics import API_REQUESTS
from imaging_operator.resources import Json, Resource

FIELD_MANAGER = "imaging-ingestion-operator"
_PAGE = 500
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_MERGE = "application/merge-patch+json"


class Cluster:
    """The API server of one cluster."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """One object; None when there is none."""
        return await self._found("get", resource, resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Json]:
        """All objects of a kind with these labels, of one namespace or of all; none when the kind is not served."""
        params: dict[str, str | int] = {"limit": _PAGE}
        if labels:
            params["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        items: list[Json] = []
        while True:
            page = await self._found("list", resource, resource.path(namespace), params)
            if page is None:
                return items
            # The items of a list do not repeat what they are.
            kind = {"apiVersion": resource.api_version, "kind": resource.kind}
            items += [kind | item for item in page.get("items") or []]
            params["continue"] = page["metadata"].get("continue") or ""
            if not params["continue"]:
                return items

    async def create(self, resource: Resource, namespace: str, document: Json) -> Json:
        """Create an object. Raises ``Conflict`` when one of its name exists."""
        path = resource.path(namespace)
        return await self._send("create", "POST", resource, path, body=document, params={"fieldManager": FIELD_MANAGER})

    async def apply(self, resource: Resource, namespace: str, document: Json) -> Json:
        """Server-side apply: our fields become as in ``document``, fields of ours that are not in it go away."""
        path = resource.path(namespace, document["metadata"]["name"])
        params: dict[str, str | int] = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._send("patch", "PATCH", resource, path, body=document, params=params, content_type=_APPLY)

    async def merge(self, resource: Resource, namespace: str, name: str, patch: Json) -> Json:
        """Merge patch, such as of finalizers; with ``metadata.resourceVersion`` in it a lost race is ``Conflict``."""
        path = resource.path(namespace, name)
        return await self._send("patch", "PATCH", resource, path, body=patch, content_type=_MERGE)

    async def replace(self, resource: Resource, namespace: str, document: Json, subresource: str | None = None) -> Json:
        """Replace an object, or its status, as it was read. Raises ``Conflict`` when it changed since."""
        path = resource.path(namespace, document["metadata"]["name"], subresource)
        return await self._send("update", "PUT", resource, path, body=document)

    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: str, *, foreground: bool = False
    ) -> None:
        """Delete this very object, and what it owns afterwards or, ``foreground``, before; gone already is fine."""
        body = {
            "propagationPolicy": "Foreground" if foreground else "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._send("delete", "DELETE", resource, resource.path(namespace, name), body=body)
        except _NotFound:
            return

    async def served(self, resources: Iterable[Resource]) -> frozenset[Resource]:
        """Those of these kinds that the cluster has now."""
        wanted = list(resources)
        found: set[tuple[str, str]] = set()
        for root in sorted({each.root for each in wanted}):
            page = await self._found("discover", None, root)
            found |= {(root, each["name"]) for each in (page or {}).get("resources") or []}
        return frozenset(each for each in wanted if (each.root, each.plural) in found)

    async def _found(
        self, verb: str, resource: Resource | None, path: str, params: Mapping[str, str | int] | None = None
    ) -> Json | None:
        try:
            return await self._send(verb, "GET", resource, path, params=params)
        except _NotFound:
            return None

    async def _send(
        self,
        verb: str,
        method: str,
        resource: Resource | None,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Json | None = None,
        content_type: str = _JSON,
    ) -> Json:
        content = None if body is None else orjson.dumps(body)
        plural = resource.plural if resource else "apis"
        try:
            response = await self._client.request(
                method, path, params=params, content=content, headers={"Content-Type": content_type} if content else {}
            )
        except (httpx.HTTPError, OSError) as error:  # OSError: the token file is not there at this moment
            API_REQUESTS.labels(verb, plural, "none").inc()
            raise ApiUnavailable(f"the API server does not answer: {type(error).__name__}") from error
        API_REQUESTS.labels(verb, plural, str(response.status_code)).inc()
        if response.is_success:
            return _document(response)
        raise _error(response, f"{verb} {plural}")


@asynccontextmanager
async def connect(connection: Connection, timeout_seconds: float) -> AsyncIterator[Cluster]:
    """A cluster; nothing is sent yet."""
    async with httpx.AsyncClient(
        base_url=connection.server,
        verify=connection.ssl_context(),
        auth=_auth(connection),
        timeout=httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds)),
        limits=httpx.Limits(max_connections=32, keepalive_expiry=30),
        trust_env=False,
        headers={"Accept": _JSON, "User-Agent": FIELD_MANAGER},
    ) as client:
        yield Cluster(client)


class _NotFound(NotYet):
    """404; only ``get``, ``list`` and ``delete`` know what it means. Else the namespace or the kind went away."""


class _Token(httpx.Auth):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers["Authorization"] = f"Bearer {self._connection.current_token()}"
        yield request


def _auth(connection: Connection) -> httpx.Auth | None:
    if connection.token or connection.token_file:
        return _Token(connection)
    return httpx.BasicAuth(connection.user, connection.password) if connection.user and connection.password else None


def _document(response: httpx.Response) -> Json:
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        raise ApiUnavailable("the API server answered with something that is not JSON") from None
    return dict(document)


# No missing right: a namespace, or a definition with all resources of its kind, is being removed.
_ENDING = ("because it is being terminated", "custom resource definition is terminating")


def _error(response: httpx.Response, what: str) -> ReconcileError:
    """The error that a status means; the API server's own words say why."""
    code, why = response.status_code, _message(response)
    if code == 404:
        return _NotFound(why)
    if code == 409 or (code == 403 and any(words in why for words in _ENDING)):
        return Conflict(why)
    if code == 403:
        return Forbidden(f"the operator may not {what}: {why}")
    if code == 401:
        return Forbidden("the API server does not accept the operator's credentials")
    if code == 429 or code >= 500:
        return ApiUnavailable(f"the API server could not {what}: {why}")
    return Wrong(why)


def _message(response: httpx.Response) -> str:
    try:
        return str(orjson.loads(response.content)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"
