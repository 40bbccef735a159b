"""What an audit needs of the manifest."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from imaging_services.domain.audit.model import Entry, Version
from imaging_services.domain.manifest.recording import InstanceKey


class AuditedManifest(Protocol):
    """The manifest of one provider, by the names of objects. Every method raises a RetryableError when it fails."""

    async def total(self) -> int:
        """How many instances there are, about."""
        ...

    def entries(self, after: str = "") -> AsyncIterator[list[Entry]]:
        """All that is known of object names behind ``after``, in order of their bytes, as of the first page."""
        ...

    async def entries_of(self, names: Sequence[str]) -> list[Entry]:
        """What is known of these names now, in any order."""
        ...

    async def instances(self, entries: Sequence[Entry]) -> dict[int, InstanceKey]:
        """Those of the entries' instances that still are as the entries say, by ``instance_id``: in these objects, and
        marked if they were."""
        ...

    async def versions(self, keys: Sequence[InstanceKey]) -> dict[InstanceKey, Version]:
        """What is recorded of these instances."""
        ...

    async def mark_missing(self, instances: Mapping[int, str]) -> None:
        """These instances' objects (names by ``instance_id``) are missing; what has another object by now is left."""
        ...

    async def unmark(self, instances: Sequence[int]) -> None:
        """These instances' objects are there."""
        ...

    async def leave_behind(self, instance: int, name: str, digest: str) -> None:
        """The object holds a version of the instance that is not to be recorded. It is removed with the instance."""
        ...

    async def deletions(self, keys: Sequence[InstanceKey]) -> dict[InstanceKey, datetime]:
        """When those of these instances that have been deleted were, the last time."""
        ...

    async def successor(self, name: str) -> tuple[str, str | None] | None:
        """The object, and its digest, in which the deleted instance of this object lies by now."""
        ...

    async def await_removal(self, names: Sequence[str]) -> None:
        """These objects of deleted instances are there again: they wait to be removed, but for those that an instance
        lies in."""
        ...
