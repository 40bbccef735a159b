"""Mending what an audit found. Everything is done the way in which it would have been done in its time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from imaging_services.domain.audit.digests import digest_in
from imaging_services.domain.audit.model import Entry, Finding, Kind, Version
from imaging_services.domain.audit.ports import AuditedManifest
from imaging_services.domain.audit.turns import each
from imaging_services.domain.errors import NotFound, ObjectDeleted, PermanentError, Superseded
from imaging_services.domain.ingest.announcement import Provenance, StoredObject, image_stored
from imaging_services.domain.ingest.heading import Heading
from imaging_services.domain.manifest.deletion import digest_of
from imaging_services.domain.ports import EventSink, ObjectInfo, ObjectStore

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Repair:
    """Repairs of one space. ``sink`` takes events to the event processor. With ``newest_wins`` an unknown object
    replaces the recorded version of its instance when it was written after that was accepted; without, such an object
    is left to whoever reads the report. Without ``mark_all`` the audit stops when far too much is missing."""

    space: ObjectStore
    manifest: AuditedManifest
    sink: EventSink
    provenance: Provenance
    newest_wins: bool = False
    mark_all: bool = False

    async def mark_missing(self, entries: Sequence[Entry]) -> dict[int, str]:
        """Mark instances; returns what was done, by ``instance_id``. One that is stored again at this moment is not
        left marked: its object is looked for once more."""
        names = {one.instance_id: one.object_name for one in entries if one.instance_id is not None}
        await self.manifest.mark_missing(names)
        again: list[int] = []

        async def look(one: tuple[int, str]) -> None:
            if await self.space.head(one[1]) is not None:
                again.append(one[0])

        await each(_AT_ONCE, names.items(), look)
        if again:
            await self.manifest.unmark(again)
        return {one: "there again" if one in again else "marked as missing" for one in names}

    async def unmark(self, entries: Sequence[Entry]) -> str:
        """Their object is there."""
        await self.manifest.unmark([one.instance_id for one in entries if one.instance_id is not None])
        return "mark taken away"

    async def await_removal(self, key: str) -> str | None:
        """Have it removed as other objects of deleted instances are; None: its instance lies under another name by
        now, and these may be the only bytes of it that are intact."""
        successor = await self.manifest.successor(key)
        if successor is not None and successor[1] == digest_of(key):
            try:
                found, _ = await digest_in(self.space, successor[0])
            except NotFound:
                return None
            if found != successor[1]:
                return None
        await self.manifest.await_removal([key])
        return "waits to be removed"

    async def record(self, info: ObjectInfo, heading: Heading, finding: Finding) -> Finding:
        """Hand in the event of an unknown object; returns the finding with what became of it."""
        key = (heading.study_instance_uid, heading.series_instance_uid, heading.sop_instance_uid)
        digest = digest_of(info.key) or ""
        try:
            found, _ = await digest_in(self.space, info.key)
        except NotFound:
            return replace(finding, reason="not recorded, and removed meanwhile", repaired="nothing to do")
        if found != digest:
            return replace(finding, kind=Kind.WRONG_DIGEST, reason=f"not recorded; its bytes have the SHA-256 {found}")
        deleted_at = (await self.manifest.deletions([key])).get(key)
        if deleted_at is not None and info.last_modified < deleted_at:
            return replace(finding, reason="not recorded, and its instance was deleted")
        version = (await self.manifest.versions([key])).get(key)
        if version is not None and await self._is_lost(version, digest):
            # By itself a repetition of the same bytes changes no name.
            await self.manifest.mark_missing({version.instance_id: version.object_name})
        elif version is not None and not self._is_news(version, info, digest):
            if version.digest != digest and not self.newest_wins:
                return replace(finding, reason="another version of its instance is recorded; see --newest-wins")
            await self.manifest.leave_behind(version.instance_id, info.key, digest)
            return replace(finding, repaired="listed as an earlier version")
        event = image_stored(StoredObject(info.key, info.size, digest), heading, self.provenance, info.last_modified)
        try:
            await self.sink.send(event)
        except Superseded:
            return replace(finding, repaired="listed as an earlier version")
        except ObjectDeleted:
            return replace(finding, repaired="waits to be removed")
        except PermanentError as error:
            return replace(finding, reason=f"not recorded, and refused: {error}")
        return replace(finding, repaired="recorded")

    async def _is_lost(self, version: Version, digest: str) -> bool:
        """Whether the recorded object is not there, and the same bytes are: as after a backup was restored from before
        the instance was deleted and stored again."""
        return version.digest == digest and await self.space.head(version.object_name) is None

    def _is_news(self, version: Version, info: ObjectInfo, digest: str) -> bool:
        """Whether an object is newer than what is recorded of its instance."""
        if not self.newest_wins or version.digest == digest:
            return False
        return version.accepted_at is None or info.last_modified > version.accepted_at
