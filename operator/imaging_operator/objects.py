"""A resource's objects in the cluster: made as the builders want them, repaired, and removed when no longer wanted."""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping

import orjson
import structlog

from imaging_operator.builders.names import CREATE_ONLY, KIND_LABEL, MANAGED_BY, OWNER_LABEL
from imaging_operator.cluster import FIELD_MANAGER, Cluster
from imaging_operator.discovery import Discovery
from imaging_operator.errors import Conflict, Wrong
from imaging_operator.resources import (
    AUTOSCALER,
    DEPLOYMENT,
    KNATIVE_SERVICE,
    SCALED_OBJECT,
    Json,
    Key,
    Resource,
    controller,
    identity,
    in_order,
    owned,
)

log = structlog.get_logger(__name__)

_Identity = tuple[str, str, str]
_VOLATILE = ("managedFields", "resourceVersion", "generation")
_IN_THE_WAY = frozenset({KNATIVE_SERVICE, AUTOSCALER, SCALED_OBJECT})
"""Removed before anything is applied: the Route of a Knative Service holds the core Service of its name, and KEDA
refuses a ScaledObject while another autoscaler has the Deployment."""


class Objects:
    """What the resources own.

    Objects that are as the last apply left them are not applied again: a pass over an unchanged resource only reads.
    """

    def __init__(self, cluster: Cluster, discovery: Discovery) -> None:
        self._cluster = cluster
        self._discovery = discovery
        self._applied: dict[Key, dict[_Identity, tuple[bytes, bytes]]] = {}

    async def apply(self, owner: Json, wanted: Iterable[Json]) -> list[Json]:
        """Bring the cluster to what is wanted; returns the objects as they are now.

        Raises ``Conflict`` and ``Wrong`` for names that others hold.
        """
        key = key_of(owner)
        present = await self.present(owner)
        applied = self._applied.setdefault(key, {})
        documents = [_with_owner(document, owner) for document in in_order(wanted)]
        unwanted = _unwanted(owner, present, documents)
        await self._delete(owner, [each for each in unwanted if owned(each) in _IN_THE_WAY])
        live = [await self._bring(owner, document, present, applied) for document in documents]
        await self._delete(owner, [each for each in unwanted if owned(each) not in _IN_THE_WAY])
        return live

    async def remove(self, owner: Json) -> list[Json]:
        """Delete everything; returns what is still there, such as a Deployment whose pods are stopping."""
        self.forget(key_of(owner))
        present = await self.present(owner)
        ours = [each for each in present.values() if _is_controlled_by(each, owner)]
        await self._delete(owner, ours, foreground=True)
        return ours

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._applied.pop(key, None)

    async def present(self, owner: Json) -> dict[_Identity, Json]:
        """Objects with the labels of this resource."""
        labels, namespace = _labels(owner), owner["metadata"]["namespace"]

        async def listed(resource: Resource) -> list[Json]:
            return await self._cluster.list(resource, namespace, labels)

        try:
            async with asyncio.TaskGroup() as tasks:
                lists = [tasks.create_task(listed(resource)) for resource in self._discovery.owned]
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        return {identity(document): document for each in lists for document in each.result()}

    async def _bring(
        self,
        owner: Json,
        document: Json,
        present: Mapping[_Identity, Json],
        applied: dict[_Identity, tuple[bytes, bytes]],
    ) -> Json:
        resource, namespace, name = owned(document), owner["metadata"]["namespace"], document["metadata"]["name"]
        found = present.get(identity(document)) or await self._cluster.get(resource, namespace, name)
        if _is_create_only(document):
            return await self._leave_or_create(resource, owner, document, found)
        if found:
            _check_free(found, owner)
            if applied.get(identity(document)) == (_digest(document), _digest(found)):
                return found
            await self._adopt(resource, found)
            await self._leave_replicas(resource, found, document)
        live = await self._cluster.apply(resource, namespace, document)
        applied[identity(document)] = _digest(document), _digest(live)
        if found is None or live["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            log.info("applied", owner=str(key_of(owner)), object=f"{resource.kind} {name}", new=found is None)
        return live

    async def _leave_or_create(self, resource: Resource, owner: Json, document: Json, found: Json | None) -> Json:
        """What users may edit keeps its content; left over from a former resource, it goes with this one."""
        namespace, metadata = owner["metadata"]["namespace"], document["metadata"]
        if found is None:
            return await self._cluster.create(resource, namespace, document)
        if not _is_orphan(found, owner):
            return found
        references = [*(found["metadata"].get("ownerReferences") or []), *metadata["ownerReferences"]]
        patch = {"ownerReferences": references, "resourceVersion": found["metadata"]["resourceVersion"]}
        return await self._cluster.merge(resource, namespace, metadata["name"], {"metadata": patch})

    async def _adopt(self, resource: Resource, found: Json) -> None:
        """What an operator that did not apply server-side had set becomes ours, so that the apply takes away what is
        no longer wanted, such as an environment variable."""
        metadata = found["metadata"]
        managed = metadata.get("managedFields") or []
        theirs = [each for each in managed if _is_update_of_a_person_or_operator(each)]
        if not theirs or any(each["manager"] == FIELD_MANAGER for each in managed):
            return
        fields: Json = {}
        for each in theirs:
            fields = _union(fields, each["fieldsV1"])
        ours = {**theirs[0], "manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields}
        rest = [each for each in managed if each not in theirs]
        log.info("adopting", object=f"{resource.kind} {metadata['name']}")
        await self._manage(resource, found, [ours, *rest])

    async def _leave_replicas(self, resource: Resource, found: Json, document: Json) -> None:
        """A number of replicas that is an autoscaler's from now on keeps its value: an apply without it would take it
        away, which means one."""
        managed = found["metadata"].get("managedFields") or []
        ours: Json = next((each for each in managed if each["manager"] == FIELD_MANAGER), {})
        spec = ours.get("fieldsV1", {}).get("f:spec", {})
        if resource != DEPLOYMENT or "f:replicas" not in spec or "replicas" in document["spec"]:
            return
        fields = {**ours["fieldsV1"], "f:spec": {key: each for key, each in spec.items() if key != "f:replicas"}}
        rest = [each for each in managed if each is not ours]
        await self._manage(resource, found, [{**ours, "fieldsV1": fields}, *rest])

    async def _manage(self, resource: Resource, found: Json, managed: list[Json]) -> None:
        """Say who manages which field; values stay as they are."""
        metadata = found["metadata"]
        patch = {"metadata": {"managedFields": managed, "resourceVersion": metadata["resourceVersion"]}}
        changed = await self._cluster.merge(resource, metadata["namespace"], metadata["name"], patch)
        found["metadata"] = changed["metadata"]

    async def _delete(self, owner: Json, documents: Iterable[Json], *, foreground: bool = False) -> None:
        for document in documents:
            metadata, resource = document["metadata"], owned(document)
            if not metadata.get("deletionTimestamp"):
                log.info("removing", owner=str(key_of(owner)), object=f"{resource.kind} {metadata['name']}")
                await self._cluster.delete(
                    resource, metadata["namespace"], metadata["name"], metadata["uid"], foreground=foreground
                )


def key_of(document: Json) -> Key:
    """The key of one of the seven kinds' resources."""
    return Key(document["kind"], document["metadata"]["namespace"], document["metadata"]["name"])


def _with_owner(document: Json, owner: Json) -> Json:
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        # True would ask for the right to change the resource's finalizers where OpenShift checks that.
        "blockOwnerDeletion": False,
    }
    return document | {"metadata": document["metadata"] | {"ownerReferences": [reference]}}


def _unwanted(owner: Json, present: Mapping[_Identity, Json], wanted: Iterable[Json]) -> list[Json]:
    """What is to be removed; what a user may have edited stays as long as the resource, and goes with it."""
    keep = {identity(document) for document in wanted}
    return [
        document
        for name, document in present.items()
        if name not in keep and _is_controlled_by(document, owner) and not _is_create_only(document)
    ]


def _check_free(found: Json, owner: Json) -> None:
    """Nobody else's object is taken over. Raises ``Conflict`` while it will go away by itself, else ``Wrong``."""
    if _is_controlled_by(found, owner):
        return
    kind, name, holder = found["kind"], found["metadata"]["name"], controller(found)
    if holder and (holder["kind"], holder["name"]) == (owner["kind"], owner["metadata"]["name"]):
        raise Conflict(f"{kind} {name} of a deleted {owner['kind']} of this name is still being removed")
    if found["metadata"].get("deletionTimestamp"):
        raise Conflict(f"{kind} {name}, which is not ours, is still being removed")
    if _is_orphan(found, owner):
        return
    if holder and _is_route(holder) and _has_labels_of(found, owner):
        raise Conflict(f"{kind} {name} of the former Knative Service is still being removed")
    whose = f"belongs to {holder['kind']} {holder['name']}" if holder else "was not made by the operator"
    raise Wrong(f"{kind} {name} exists and {whose}: delete it, or give this {owner['kind']} another name")


def _is_update_of_a_person_or_operator(entry: Json) -> bool:
    is_update = entry["operation"] == "Update" and not entry.get("subresource")
    return is_update and entry["manager"] != "kube-controller-manager"


def _union(one: Json, other: Json) -> Json:
    """Of two sets of fields as ``managedFields`` writes them: objects within objects."""
    return {key: _union(one.get(key, {}), other.get(key, {})) for key in {**one, **other}}


def _is_controlled_by(document: Json, owner: Json) -> bool:
    holder = controller(document)
    return holder is not None and holder["uid"] == owner["metadata"]["uid"]


def _is_orphan(document: Json, owner: Json) -> bool:
    """True for what ``kubectl delete --cascade=orphan`` left of a resource of this kind and name."""
    return controller(document) is None and _has_labels_of(document, owner)


def _has_labels_of(document: Json, owner: Json) -> bool:
    return _labels(owner).items() <= (document["metadata"].get("labels") or {}).items()


def _labels(owner: Json) -> dict[str, str]:
    """By which the objects of a resource are found. Knative gives them to what it makes of its Services."""
    return {
        "app.kubernetes.io/managed-by": MANAGED_BY,
        KIND_LABEL: owner["kind"],
        OWNER_LABEL: owner["metadata"]["name"],
    }


def _is_route(holder: Json) -> bool:
    group = str(holder["apiVersion"]).partition("/")[0]
    return (group, holder["kind"]) == (KNATIVE_SERVICE.group, "Route")


def _is_create_only(document: Json) -> bool:
    return (document["metadata"].get("annotations") or {}).get(CREATE_ONLY) == "true"


def _digest(document: Json) -> bytes:
    """Of everything but the status and what changes with every write."""
    metadata = {name: value for name, value in document["metadata"].items() if name not in _VOLATILE}
    rest = {name: value for name, value in document.items() if name != "status"} | {"metadata": metadata}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).digest()
