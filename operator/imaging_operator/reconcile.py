"""One pass over one resource, the same for every kind: references, objects, status. Level-triggered and idempotent."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import ValidationError

from imaging_operator.builders.names import GROUP
from imaging_operator.cluster import Cluster
from imaging_operator.discovery import Discovery
from imaging_operator.errors import ApiUnavailable, InternalError, NotYet, ReconcileError, Wrong
from imaging_operator.events import EventRecorder
from imaging_operator.kinds.common import STREAM, Kind, Wanted
from imaging_operator.objects import Objects, key_of
from imaging_operator.references import ReferenceIndex, Resolved, Target, resolve
from imaging_operator.resources import Json, Key, Resource, custom
from imaging_operator.settings import OperatorSettings
from imaging_operator.status import Outcome, next_status

FINALIZER = f"{GROUP}/streams"
"""Only on resources with ``retention: Delete``: their streams are outside Kubernetes and go first."""


class StreamRemover(Protocol):
    """Removes what ``retention: Delete`` says shall not outlive a resource."""

    async def __call__(self, wanted: Wanted[Any]) -> list[str]:
        """Names of what was removed, in words. Raises ``NotYet`` when it has to be tried again."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is said when a resource is gone."""

    about: Json
    durable: tuple[str, ...]


class Reconciler:
    """Everything a pass needs."""

    def __init__(
        self,
        cluster: Cluster,
        discovery: Discovery,
        settings: OperatorSettings,
        kinds: Mapping[str, Kind[Any]],
        index: ReferenceIndex,
        recorder: EventRecorder,
        remove_streams: StreamRemover,
    ) -> None:
        self._cluster = cluster
        self._discovery = discovery
        self._settings = settings
        self._kinds = kinds
        self._index = index
        self._recorder = recorder
        self._remove_streams = remove_streams
        self._customs = customs_of(kinds)
        self._objects = Objects(cluster, discovery)
        self._kept: dict[Key, _Kept] = {}

    async def reconcile(self, key: Key) -> bool:
        """Bring the cluster to what the resource says, and say in its status how it went; False when it is gone.

        Raises what stopped the pass: ``Wrong``, ``NotYet`` to try again, or whatever a bug raises.
        """
        document = await self._cluster.get(self._customs[key.kind], key.namespace, key.name)
        if document is None:
            await self._gone(key)
            return False
        try:
            await self._look(document)
        except ReconcileError:
            raise
        except Exception:
            # What it says helps nobody but who mends the operator: it is for the log.
            error = InternalError("Internal error of the operator: its log says more; it is tried again")
            with contextlib.suppress(ReconcileError):
                await self._report(document, Outcome(error=error))
            raise
        return True

    async def _look(self, document: Json) -> None:
        if document["metadata"].get("deletionTimestamp"):
            await self._end(document)
            return
        try:
            outcome = await self._pass(document)
        except ApiUnavailable:
            raise  # and the status cannot be written either
        except ReconcileError as error:
            await self._report(document, Outcome(error=error))
            raise
        await self._report(document, outcome)

    async def _pass(self, document: Json) -> Outcome:
        key = key_of(document)
        kind = self._kinds[key.kind]
        spec = _spec(kind, document)
        resolved = await self._resolve(key, kind, spec)
        await self._keep_finalizer(document, spec)
        wanted = self._wanted(document, spec, resolved)
        resolved.raise_if_missing()
        objects = kind.build(wanted, self._settings)
        observed = await self._objects.apply(document, objects)
        self._kept[key] = _Kept(document, tuple(kind.durable(wanted, self._settings)))
        own = kind.status(wanted, self._settings, observed)
        return Outcome(found=wanted.found, observed=observed, own=own)

    async def _resolve(self, key: Key, kind: Kind[Any], spec: Any) -> Resolved:
        resolved = await resolve(self._cluster, self._customs, key.namespace, kind.references(key.name, spec))
        self._index.remember(key, resolved.targets)
        return resolved

    def _wanted(self, document: Json, spec: Any, resolved: Resolved) -> Wanted[Any]:
        key = key_of(document)
        return Wanted(
            kind=key.kind,
            name=key.name,
            namespace=key.namespace,
            uid=document["metadata"]["uid"],
            spec=spec,
            found=resolved.found,
            features=self._discovery.features,
        )

    async def _report(self, document: Json, outcome: Outcome) -> None:
        """Write the status when it changed, and an Event when what it says in words changed."""
        old = document.get("status") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        new = next_status(old, document["metadata"].get("generation", 0), outcome, now)
        if new == old:
            return
        key = key_of(document)
        await self._cluster.replace(self._customs[key.kind], key.namespace, document | {"status": new}, "status")
        if (old.get("phase"), old.get("message")) != (new["phase"], new["message"]):
            failing = new["phase"] == "Failing"
            reason = new["conditions"][0]["reason"]
            await self._recorder.record(document, reason, new["message"], kind="Warning" if failing else "Normal")

    async def _keep_finalizer(self, document: Json, spec: Any) -> None:
        """The finalizer is there exactly as long as the resource asks for its streams to be deleted."""
        finalizers = document["metadata"].get("finalizers") or []
        if _deletes_streams(spec) and FINALIZER not in finalizers:
            await self._set_finalizers(document, [*finalizers, FINALIZER])
        elif not _deletes_streams(spec) and FINALIZER in finalizers:
            await self._set_finalizers(document, [each for each in finalizers if each != FINALIZER])

    async def _set_finalizers(self, document: Json, finalizers: list[str]) -> None:
        key, metadata = key_of(document), document["metadata"]
        patch = {"metadata": {"finalizers": finalizers or None, "resourceVersion": metadata["resourceVersion"]}}
        changed = await self._cluster.merge(self._customs[key.kind], key.namespace, key.name, patch)
        document["metadata"] = changed["metadata"]

    async def _gone(self, key: Key) -> None:
        self._index.forget(key)
        self._objects.forget(key)
        kept = self._kept.pop(key, None)
        if kept and kept.durable:
            note = f"Kept, because retention is Retain: {', '.join(kept.durable)}"
            await self._recorder.record(kept.about, "Kept", note)

    async def _end(self, document: Json) -> None:
        """The resource is being deleted. Without our finalizer Kubernetes does all that is to do."""
        if FINALIZER not in (document["metadata"].get("finalizers") or []):
            return
        key = key_of(document)
        try:
            if left := await self._objects.remove(document):
                raise NotYet(f"Waiting for {', '.join(sorted(_shown(each) for each in left))} to end")
            removed = await self._remove(document)
        except ApiUnavailable:
            raise
        except ReconcileError as error:
            if _seconds_since(document["metadata"]["deletionTimestamp"]) < self._settings.STREAM_REMOVAL_SECONDS:
                await self._report(document, Outcome(error=error))
                raise
            note = f"Gave up on removing the streams, remove them by hand: {error}"
            await self._recorder.record(document, "StreamsLeft", note, kind="Warning")
        else:
            await self._recorder.record(document, "StreamsRemoved", f"Removed: {', '.join(removed) or 'nothing'}")
        self._kept.pop(key, None)
        finalizers = [each for each in document["metadata"]["finalizers"] if each != FINALIZER]
        await self._set_finalizers(document, finalizers)

    async def _remove(self, document: Json) -> list[str]:
        key = key_of(document)
        kind = self._kinds[key.kind]
        spec = _spec(kind, document)
        resolved = await self._resolve(key, kind, spec)
        wanted = self._wanted(document, spec, resolved)
        if any(each.startswith(STREAM) for each in kind.durable(wanted, self._settings)):
            await self._wait_for_makers(key, resolved)
        return await self._remove_streams(wanted)

    async def _wait_for_makers(self, key: Key, resolved: Resolved) -> None:
        """Raise ``NotYet`` while there are resources whose pods would create the streams again."""
        makers = [
            key_of(document)
            for name, kind in self._kinds.items()
            if kind.makes_streams_of_others
            for document in await self._cluster.list(self._customs[name], key.namespace)
            if _refers_to(document, kind, key)
        ]
        if not makers:
            return
        self._index.remember(key, [*resolved.targets, *(Target(*maker) for maker in makers)])
        names = ", ".join(sorted(f"{maker.kind} {maker.name}" for maker in makers))
        raise NotYet(f"The streams cannot be removed while these use them, delete them too: {names}")


def customs_of(kinds: Mapping[str, Kind[Any]]) -> dict[str, Resource]:
    """Where each of the kinds is served."""
    return {name: custom(name, kind.plural) for name, kind in kinds.items()}


def _spec(kind: Kind[Any], document: Json) -> Any:
    """The spec as its model. Raises ``Wrong`` that names each wrong field; its value may be a secret."""
    try:
        return kind.spec.model_validate(document.get("spec") or {})
    except ValidationError as error:
        wrong = [f"spec.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)]
        raise Wrong("; ".join(wrong)) from None


def _refers_to(document: Json, kind: Kind[Any], key: Key) -> bool:
    """Whether a resource names the one of this key."""
    try:
        references = kind.references(document["metadata"]["name"], _spec(kind, document))
    except Wrong:
        return False  # it never had pods
    return any((each.kind, each.name) == (key.kind, key.name) for each in references)


def _deletes_streams(spec: Any) -> bool:
    return getattr(spec, "retention", "Retain") == "Delete"


def _shown(document: Json) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def _seconds_since(timestamp: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()
