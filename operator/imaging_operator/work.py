"""The workers: keys from the queue to the reconciler, and what becomes of a key after its pass."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence

import structlog

from imaging_operator.cluster import Cluster
from imaging_operator.discovery import Discovery
from imaging_operator.errors import NotYet, ReconcileError
from imaging_operator.metrics import ERRORS, RECONCILE_SECONDS, RECONCILIATIONS, RESOURCES
from imaging_operator.objects import key_of
from imaging_operator.queue import WorkQueue
from imaging_operator.reconcile import Reconciler
from imaging_operator.references import ReferenceIndex
from imaging_operator.resources import Json, Key, controller

log = structlog.get_logger(__name__)


class Worker:
    """Takes keys while this replica leads."""

    def __init__(self, queue: WorkQueue, reconciler: Reconciler, leads: asyncio.Event) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._leads = leads

    async def run(self) -> None:
        """For ever, one key after the other."""
        while True:
            key = await self._queue.take()
            await self._leads.wait()
            await self.one(key)

    async def one(self, key: Key) -> None:
        """One pass over one resource, and when the next is due."""
        began = time.monotonic()
        try:
            exists = await self._reconciler.reconcile(key)
        except ReconcileError as error:
            self._failed(key, error)
        except Exception:
            # A bug must not stop the other resources; the traceback holds no object's content.
            log.exception("pass failed unexpectedly", resource=str(key))
            self._count(key, "bug", "Unexpected")
            self._queue.failed(key)
        else:
            RECONCILIATIONS.labels(key.kind, "success" if exists else "gone").inc()
            if exists:
                self._queue.done(key)
            else:
                self._queue.forget(key)
        finally:
            RECONCILE_SECONDS.labels(key.kind).observe(time.monotonic() - began)

    def _failed(self, key: Key, error: ReconcileError) -> None:
        self._count(key, "error", error.reason)
        if isinstance(error, NotYet):
            delay = self._queue.failed(key)
            log.warning("not yet", resource=str(key), error=str(error), next_try_seconds=round(delay, 1))
        else:
            self._queue.done(key)
            log.error("wrong, waiting for a change", resource=str(key), error=str(error))

    def _count(self, key: Key, result: str, reason: str) -> None:
        RECONCILIATIONS.labels(key.kind, result).inc()
        ERRORS.labels(key.kind, reason).inc()


class Waker:
    """Which resources a change in the cluster concerns."""

    def __init__(self, queue: WorkQueue, index: ReferenceIndex, kinds: Iterable[str]) -> None:
        self._queue = queue
        self._index = index
        self._kinds = frozenset(kinds)
        self._versions: dict[Key, tuple[object, ...]] = {}

    def saw(self, document: Json, gone: bool) -> None:
        """An object appeared, changed or went; ``document`` needs kind, metadata and nothing else."""
        kind, metadata = document["kind"], document["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        if kind in self._kinds and self._is_new(Key(kind, namespace, name), metadata, gone=gone):
            self._queue.add(Key(kind, namespace, name))
        owner = controller(document)
        if owner and owner["kind"] in self._kinds:
            self._queue.add(Key(owner["kind"], namespace, owner["name"]))
        for key in self._index.users(kind, namespace, name):
            self._queue.add(key)

    def _is_new(self, key: Key, metadata: Json, *, gone: bool) -> bool:
        """False for what only the status changed of: most often that is our own doing."""
        if gone:
            self._versions.pop(key, None)
            return True
        version = (
            metadata["uid"],
            metadata.get("generation"),
            metadata.get("deletionTimestamp"),
            tuple(metadata.get("finalizers") or ()),
        )
        known = self._versions.get(key)
        self._versions[key] = version
        return version != known


class Resync:
    """Looks at everything again and again, so that no lost event leaves a resource alone for long."""

    def __init__(self, cluster: Cluster, discovery: Discovery, queue: WorkQueue, namespaces: Sequence[str]) -> None:
        self._cluster = cluster
        self._discovery = discovery
        self._queue = queue
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._looked = time.monotonic()
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """Look now: something changed that no event tells of."""
        self._soon.set()

    def seconds_since_look(self) -> float:
        """How long ago it was tried to look at everything."""
        return time.monotonic() - self._looked

    async def run(self, seconds: float, retry_seconds: float) -> None:
        """For ever; the first look is at once, a failed one is repeated soon."""
        while True:
            self._looked = time.monotonic()
            self._soon.clear()
            pause = seconds
            try:
                await self.look()
            except ReconcileError as error:
                log.warning("cannot list the resources", error=str(error))
                pause = min(seconds, retry_seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._soon.wait()

    async def look(self) -> None:
        """Every resource, and every one that was known before, is due now."""
        keys = set(self._queue.keys())
        for resource in self._discovery.customs:
            lists = [await self._cluster.list(resource, namespace) for namespace in self._namespaces]
            found = [key_of(document) for documents in lists for document in documents]
            RESOURCES.labels(resource.kind).set(len(found))
            keys.update(found)
        for key in sorted(keys):
            self._queue.add(key)
