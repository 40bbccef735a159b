"""What the services need of the outside world. Each port has real adapters and a twin in ``adapters/memory``."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

from imaging_services.domain.errors import PermanentError
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.manifest.deletion import DeletedObject
from imaging_services.domain.manifest.query import DicomJson, InstanceLocation, Query, Scope


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a storage space: key, length in bytes, time of last change."""

    key: str
    size: int
    last_modified: datetime


class ObjectStore(Protocol):
    """One storage space (bucket, container or folder).

    Every method raises ``BackendUnavailable``, ``DeadlineExceeded`` or ``OutOfResources`` when the space fails.
    """

    @property
    def bucket_name(self) -> str | None:
        """``BUCKET_NAME``; None for Azure and local folders, as events say it."""
        ...

    async def put(self, key: str, body: bytes | Path) -> None:
        """Write an object; complete and durable on return, or absent. Paths are streamed in parts."""
        ...

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes ``start`` to ``start + length`` (default: all). Raises ``NotFound``."""
        ...

    def stream(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Read as blocks of at most 1 MiB. Raises ``NotFound`` before the first block."""
        ...

    async def head(self, key: str) -> ObjectInfo | None:
        """The object's size and time, or None when there is none."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; absent is fine."""
        ...

    def list(self, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every object of the space whose key comes after ``after``, in order of the keys' bytes as far as the space
        keeps to it; S3 services may list keys with ``/`` elsewhere."""
        ...

    async def check(self) -> None:
        """Raise with a sentence when the space cannot be reached, read or written."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


@runtime_checkable
class LocalObjects(Protocol):
    """A storage space whose objects are files of this machine, which can be sent on without being read."""

    def file(self, key: str) -> Path | None:
        """Where the object is, or would be, None when it is not known to be on this machine. Raises ``NotFound`` for
        what is no key."""
        ...

    async def file_length(self, key: str) -> int | None:
        """Length of that file in bytes, None when it is not there."""
        ...


class EventSink(Protocol):
    """Where a producer hands in events: ``K_SINK``."""

    async def send(self, event: CloudEvent) -> None:
        """Return when the event is safe; an ``ImageStoredEvent`` is then recorded in the manifest.

        Raises ``Conflict``, ``InvalidInput`` or another PermanentError when it was understood and refused, a
        RetryableError when it could not be handed in.
        """
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


EventHandler = Callable[[CloudEvent], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a consumer gave up on. ``sequence`` identifies it for a redrive."""

    sequence: int
    consumer: str
    reason: str
    attempts: int
    failed_at: datetime
    event: CloudEvent


class EventLog(Protocol):
    """The durable log of an EDI: one stream, a durable consumer per binding, dead letters."""

    async def append(self, events: Sequence[CloudEvent]) -> None:
        """Publish; durable on return. The same id within the de-duplication window is kept once."""
        ...

    async def consume(
        self, consumer: str, types: frozenset[str], handler: EventHandler, *, concurrency: int = 8
    ) -> None:
        """Deliver events to the handler until cancelled; on cancellation finish what is in the handler.

        Urgent events (``is_urgent``) come before those that wait, and among themselves in order. An event is
        acknowledged when the handler returns. A RetryableError (or unforeseen error) has it delivered
        again with growing delay; a PermanentError, or the last try, makes it a dead letter with the reason.
        """
        ...

    def dead_letters(self, consumer: str | None = None) -> AsyncIterator[DeadLetter]:
        """Every dead letter, oldest first."""
        ...

    async def redrive(self, consumer: str | None = None, sequences: Sequence[int] | None = None) -> int:
        """Deliver dead letters again, to their own consumer only; returns how many."""
        ...


class ManifestQuery(Protocol):
    """Reading the manifest: PostgreSQL itself, or the query API of the event processor."""

    async def search(self, query: Query) -> list[DicomJson]:
        """Matches in a stable order, each with the level's attributes. ``query.limit`` None: all.

        Raises ``InvalidInput`` that names a bad matching value.
        """
        ...

    async def locate(self, scope: Scope) -> list[InstanceLocation]:
        """Instances of a study, series or instance, by series and instance number; empty when unknown."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


class DeletedObjects(Protocol):
    """Objects that instances have left in a storage space by being deleted; their names are never used again."""

    async def waiting_objects(self, provider: str, limit: int = 256) -> list[DeletedObject]:
        """The oldest of the provider's objects that have not been removed yet."""
        ...

    async def objects_removed(self, provider: str, objects: Sequence[DeletedObject]) -> None:
        """They are no longer there. One that was written anew meanwhile goes on waiting."""
        ...


class KeptHeaders(Protocol):
    """Encoded headers of instances by object name, so that a study header document reads each stored file once.

    A cache: any of them may be missing. What an implementation returns was saved for that object.
    """

    async def load(self, study_instance_uid: str, provider: str) -> dict[str, bytes]:
        """What is kept of a provider's study."""
        ...

    async def save(self, study_instance_uid: str, provider: str, headers: Mapping[str, bytes]) -> None:
        """Keep some more of a study."""
        ...


class StudyHolds(Protocol):
    """Open associations, which hold back the revision of each study that they are sending."""

    async def hold(self, association_id: str, study_instance_uid: str, lease: timedelta) -> None:
        """The association sends this study; no effect after ``release``. Expires unless renewed."""
        ...

    async def renew(self, association_id: str, lease: timedelta) -> None:
        """The association is still open."""
        ...

    async def release(self, association_id: str) -> None:
        """The association has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """How much the manifest holds; ``events`` counts those handed to the event log."""

    studies: int
    series: int
    instances: int
    events: int


class Manifest(ManifestQuery, StudyHolds, DeletedObjects, Protocol):
    """The manifest as the event processor writes it. Events to publish are written in the same transaction."""

    async def record(
        self, events: Sequence[CloudEvent], turn: Callable[[], Awaitable[object]] | None = None
    ) -> list[PermanentError | None]:
        """Record a batch in one transaction, and queue the events that follow from it. ``turn`` is waited for between
        reading the events and recording them: until what has to be recorded before is recorded.

        ``ImageStoredEvent``: recorded, and queued with its ``DicomAvailableEvent`` unless the same bytes were
        known. ``ImageDeletedEvent``: what it names is deleted, and the event queued unless nothing of that was there;
        an instance that is later stored under the name of a deleted object is refused with ``ObjectDeleted``.
        Other types are only queued. One result an event, in order: None, or why it was refused. Raises a
        RetryableError when nothing of the batch was recorded.
        """
        ...

    async def revise(self, quiet: timedelta, limit: int = 32) -> int:
        """Claim studies that have been quiet for longer than ``quiet`` and that no open association holds; queue
        a ``StudyRevisionEvent`` for each; returns how many. Several processors may call it at once."""
        ...

    async def publish_pending(
        self, publish: Callable[[Sequence[CloudEvent]], Awaitable[None]], limit: int = 256
    ) -> int:
        """Hand queued events to ``publish`` in order and mark them published; returns how many, fewer than ``limit``
        when no more were waiting."""
        ...

    async def counts(self) -> Counts:
        """Totals for the console and metrics."""
        ...


class Spool(Protocol):
    """Receives one instance's bytes: in memory up to a limit, then in a file that vanishes at exit."""

    async def write(self, block: bytes) -> None:
        """Append. Raises ``OutOfResources`` when the disk is full."""
        ...

    async def body(self) -> bytes | Path:
        """All that was written, for ``ObjectStore.put``; a Path lives until the context ends."""
        ...

    async def digest(self) -> str:
        """Lower-case hex SHA-256 of all that was written."""
        ...

    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...


class Spools(Protocol):
    """Makes spools."""

    def open(self) -> AbstractAsyncContextManager[Spool]:
        """A new spool; leaving the context removes what it kept on disk."""
        ...
