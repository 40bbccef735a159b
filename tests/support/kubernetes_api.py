"""An API server in memory: as much of Kubernetes' API as the operator uses, without admission, defaults or watches."""

import copy
import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from imaging_operator.cluster import Cluster

Json = dict[str, Any]
Answer = Callable[[httpx.Request], httpx.Response | None]
_PATH = re.compile(
    r"(?P<root>/api/v1|/apis/[^/]+/[^/]+)(/namespaces/(?P<namespace>[^/]+))?"
    r"(/(?P<plural>[^/]+)(/(?P<name>[^/]+)(/(?P<subresource>[^/]+))?)?)?"
)


class KubernetesApi:
    """Objects by collection, namespace and name."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.served: set[tuple[str, str]] = set()
        """(root, plural) of what discovery shows."""
        self.requests: list[tuple[str, str]] = []
        """Method and path of every request."""
        self.answer: Answer = lambda request: None
        """Asked before each request is handled: an answer of its own stands for a failure."""
        self._versions = itertools.count(1)

    def client(self) -> httpx.AsyncClient:
        """A client of this server."""
        return httpx.AsyncClient(base_url="http://kubernetes", transport=httpx.MockTransport(self._handle))

    def cluster(self) -> Cluster:
        """The operator's view of it."""
        return Cluster(self.client())

    def put(self, collection: str, document: Json) -> Json:
        """Store an object as if it had always been there; ``collection`` is ``configmaps`` or ``leases``."""
        metadata = document["metadata"]
        metadata.setdefault("uid", f"uid-{next(self._versions)}")
        metadata["resourceVersion"] = str(next(self._versions))
        metadata.setdefault("generation", 1)
        self.objects[collection, metadata["namespace"], metadata["name"]] = document
        return document

    def get(self, collection: str, name: str, namespace: str = "ns") -> Json | None:
        """A copy of an object."""
        return copy.deepcopy(self.objects.get((collection, namespace, name)))

    def names(self, collection: str) -> list[str]:
        """Names of all objects of a collection."""
        return sorted(name for kind, _, name in self.objects if kind == collection)

    def writes(self) -> list[tuple[str, str]]:
        """Requests that change something, without Events."""
        return [(method, path) for method, path in self.requests if method != "GET" and not path.endswith("/events")]

    def events(self) -> list[tuple[str, str]]:
        """Reason and note of every Event."""
        found = [each for (kind, _, _), each in self.objects.items() if kind == "events"]
        return [(each["reason"], each["note"]) for each in found]

    @contextmanager
    def failing(self, status: int, message: str = "", *, method: str = "", path: str = "") -> Iterator[None]:
        """Requests of this method, to a path with these words, fail."""

        def answer(request: httpx.Request) -> httpx.Response | None:
            concerned = request.method == (method or request.method) and path in request.url.path
            return _status(status, message) if concerned else None

        self.answer = answer
        try:
            yield
        finally:
            self.answer = lambda request: None

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((request.method, request.url.path))
        if (answer := self.answer(request)) is not None:
            return answer
        match = _PATH.fullmatch(request.url.path)
        assert match, request.url.path
        root, namespace, plural = match["root"], match["namespace"], match["plural"]
        if plural is None:
            names = [name for where, name in self.served if where == root]
            return (
                httpx.Response(200, json={"resources": [{"name": name} for name in names]}) if names else _status(404)
            )
        if match["name"] is None:
            return self._collection(request, plural, namespace)
        return self._object(request, (plural, namespace, match["name"]), match["subresource"])

    def _collection(self, request: httpx.Request, plural: str, namespace: str | None) -> httpx.Response:
        if request.method == "POST":
            return self._create(plural, str(namespace), json.loads(request.content))
        wanted = dict(pair.split("=") for pair in request.url.params.get("labelSelector", "").split(",") if pair)
        items = [
            {key: value for key, value in each.items() if key not in ("apiVersion", "kind")}
            for (kind, where, _), each in self.objects.items()
            if kind == plural
            and namespace in (None, where)
            and wanted.items() <= (each["metadata"].get("labels") or {}).items()
        ]
        return httpx.Response(200, json={"metadata": {}, "items": items})

    def _create(self, plural: str, namespace: str, document: Json) -> httpx.Response:
        document["metadata"]["namespace"] = namespace
        if (plural, namespace, document["metadata"]["name"]) in self.objects:
            return _status(409, "already exists")
        return httpx.Response(201, json=self.put(plural, document))

    def _object(
        self, request: httpx.Request, where: tuple[str, str | None, str], subresource: str | None
    ) -> httpx.Response:
        plural, namespace, name = where[0], str(where[1]), where[2]
        present = self.objects.get((plural, namespace, name))
        body = json.loads(request.content) if request.content else {}
        if present is None:
            created = request.method == "PATCH" and "apply" in request.headers["Content-Type"]
            return self._create(plural, namespace, body) if created else _status(404, f"{plural} {name} not found")
        if request.method == "DELETE":
            return self._delete((plural, namespace, name), present, body)
        if request.method == "GET":
            return httpx.Response(200, json=present)
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, present["metadata"]["resourceVersion"]):
            return _status(409, "the object has been modified")
        changed = _changed(request, present, body, subresource)
        if changed != present:
            if _content(changed) != _content(present):
                changed["metadata"]["generation"] = present["metadata"]["generation"] + 1
            changed["metadata"]["resourceVersion"] = str(next(self._versions))
            self.objects[plural, namespace, name] = changed
        if changed["metadata"].get("deletionTimestamp") and not changed["metadata"].get("finalizers"):
            del self.objects[plural, namespace, name]
        return httpx.Response(200, json=changed)

    def _delete(self, where: tuple[str, str, str], present: Json, body: Json) -> httpx.Response:
        uid = body.get("preconditions", {}).get("uid")
        if uid not in (None, present["metadata"]["uid"]):
            return _status(409, "the uid is another")
        if present["metadata"].get("finalizers"):
            present["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        else:
            del self.objects[where]
        return httpx.Response(200, json={"status": "Success"})


def _changed(request: httpx.Request, present: Json, body: Json, subresource: str | None) -> Json:
    changed = copy.deepcopy(present)
    if subresource:
        return changed | {subresource: body[subresource]}
    kind = request.headers["Content-Type"]
    if "merge" in kind:
        return dict(_merged(changed, body))
    metadata = changed["metadata"]
    if "apply" in kind:
        merged = {
            key: {**(metadata.get(key) or {}), **(body["metadata"].get(key) or {})} for key in ("labels", "annotations")
        }
        metadata |= {key: value for key, value in merged.items() if value}
        metadata |= {key: body["metadata"][key] for key in ("ownerReferences",) if key in body["metadata"]}
    return {**changed, **body, "metadata": metadata}


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _content(document: Json) -> Json:
    return {key: value for key, value in document.items() if key not in ("metadata", "status")}


def _status(code: int, message: str = "") -> httpx.Response:
    return httpx.Response(code, json={"kind": "Status", "code": code, "message": message})
