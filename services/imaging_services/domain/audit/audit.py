"""Comparing a storage space with the manifest, while both are in use.

Names come from both sides in order, so that memory does not grow with them. What seems to be wrong is looked at again,
by itself, before it is reported: an object is written before its instance is recorded, and a deleted instance leaves
the manifest before its object goes.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from imaging_services.domain.audit.brake import Brake
from imaging_services.domain.audit.digests import digest_in
from imaging_services.domain.audit.merge import Place, closing, going_on, in_chunks, merged
from imaging_services.domain.audit.model import Entry, Finding, Kind, Role, Summary
from imaging_services.domain.audit.ports import AuditedManifest
from imaging_services.domain.audit.repair import Repair
from imaging_services.domain.audit.stored_header import stored_heading
from imaging_services.domain.audit.turns import each
from imaging_services.domain.errors import InvalidInput, NotFound
from imaging_services.domain.manifest.deletion import digest_of
from imaging_services.domain.ports import ObjectInfo, ObjectStore, Spools

AT_ONCE = 16
"""Objects that are looked at or read at once."""
CHUNK = 1000
"""Names between two places where an audit can be gone on with."""
_PARTS = 1_000_000
_INSTANCES = frozenset({Role.INSTANCE, Role.MARKED})


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """``percent`` of the objects have their digests computed. Objects younger than ``grace`` are not called unknown.
    The audit begins behind the key ``after``."""

    percent: float = 1.0
    grace: timedelta = timedelta(minutes=15)
    after: str = ""


class Audit:
    """One audit. ``report`` hears of each finding, ``progress`` of each step; ``repair`` None: nothing is changed."""

    def __init__(
        self,
        space: ObjectStore,
        manifest: AuditedManifest,
        spools: Spools,
        options: AuditOptions,
        *,
        report: Callable[[Finding], None],
        repair: Repair | None = None,
        progress: Callable[[Summary], None] | None = None,
    ) -> None:
        self._space, self._manifest, self._spools, self._options = space, manifest, spools, options
        self._report, self._repair, self._progress = report, repair, progress
        self._young = datetime.now(UTC) - options.grace
        self._brake = Brake(space, applied=repair is not None and not repair.mark_all)
        self.summary = Summary(position=options.after)

    async def run(self) -> Summary:
        """Look at everything. What has come when it is interrupted stands in ``summary``; a later audit may begin
        behind its ``position``. Raises what the space and the manifest raise, and ``Conflict`` when far too much is
        missing to mark it."""
        async with closing(self._places()) as places:
            async for chunk in in_chunks(places, CHUNK):
                await self._examine(chunk)
                self.summary.position = chunk[-1].key
                if self._progress is not None:
                    self._progress(self.summary)
        return self.summary

    async def _places(self) -> AsyncIterator[Place]:
        """The manifest first: the objects of what it holds now are there when the listing begins."""
        after = self._options.after
        async with closing(going_on(self._manifest.entries, lambda page: page[-1].object_name, after)) as pages:
            first: list[Entry] = await anext(pages, [])
            async with closing(going_on(self._space.list, lambda info: info.key, after)) as objects:
                async for place in merged(objects, _flat(first, pages)):
                    yield place

    async def _examine(self, chunk: Sequence[Place]) -> None:
        self.summary.objects += sum(place.info is not None for place in chunk)
        self._brake.seen(sum(any(one.role in _INSTANCES for one in place.entries) for place in chunk))
        await self._missing([place for place in chunk if place.info is None])
        unknown = [place.info for place in chunk if place.info is not None and not place.entries]
        found = [(place.info, place.entries) for place in chunk if place.info is not None and place.entries]
        later = await self._entries_now([info for info in unknown if info.last_modified < self._young])
        found += [(info, entries) for info, entries in later if entries]
        self.summary.recent += sum(info.last_modified >= self._young for info in unknown)
        await each(AT_ONCE, [info for info, entries in later if not entries], self._unknown)
        await each(AT_ONCE, found, self._present)

    async def _entries_now(self, objects: Sequence[ObjectInfo]) -> list[tuple[ObjectInfo, list[Entry]]]:
        known: dict[str, list[Entry]] = {info.key: [] for info in objects}
        if objects:
            for entry in await self._manifest.entries_of(list(known)):
                known[entry.object_name].append(entry)
        return [(info, known[info.key]) for info in objects]

    async def _missing(self, places: Sequence[Place]) -> None:
        entries = [one for place in places for one in place.entries if one.role in _INSTANCES]
        self.summary.instances += len(entries)
        self.summary.marked += sum(one.role is Role.MARKED for one in entries)
        missing: list[Entry] = []

        async def look(entry: Entry) -> None:
            if await self._space.head(entry.object_name) is None:
                missing.append(entry)

        await each(AT_ONCE, [one for one in entries if one.role is Role.INSTANCE], look)
        named = await self._manifest.instances(missing) if missing else {}
        lost = [one for one in missing if one.instance_id in named]
        await self._brake.check(len(lost))
        marked = await self._repair.mark_missing(lost) if self._repair and lost else {}
        for one in sorted(lost, key=lambda entry: entry.object_name):
            instance = named[one.instance_id or 0]
            repaired = marked.get(one.instance_id or 0)
            self._found(Finding(Kind.MISSING, one.object_name, "recorded, but not there", instance, repaired))

    async def _present(self, seen: tuple[ObjectInfo, list[Entry]]) -> None:
        """An object whose name the manifest knows."""
        info, entries = seen
        ours = [one for one in entries if one.role in _INSTANCES]
        if ours:
            self.summary.instances += len(ours)
            await self._instance(info, ours)
            return
        role = _role(entries)
        if role is Role.DELETED and info.last_modified < self._young:
            repaired = await self._repair.await_removal(info.key) if self._repair else None
            reason = "its instance was deleted"
            if self._repair and repaired is None:
                reason += ", but what took its place is not intact"
            self._found(Finding(Kind.UNDELETED, info.key, reason, None, repaired))
        else:
            self.summary.roles[role] += 1

    async def _instance(self, info: ObjectInfo, entries: Sequence[Entry]) -> None:
        marked = [one for one in entries if one.role is Role.MARKED]
        named = await self._manifest.instances(marked) if marked else {}
        if named:
            repaired = await self._repair.unmark(marked) if self._repair else None
            for instance in named.values():
                self._found(Finding(Kind.FOUND, info.key, "marked as missing, but there", instance, repaired))
        problem = await self._wrong_size(info, entries) or await self._wrong_digest(info, entries)
        if problem is None:
            self.summary.roles[Role.INSTANCE] += not named
            return
        kind, reason = problem
        there = [replace(one, role=Role.INSTANCE) for one in entries]
        for instance in (await self._manifest.instances(there)).values():
            self._found(Finding(kind, info.key, reason, instance))

    async def _wrong_size(self, info: ObjectInfo, entries: Iterable[Entry]) -> tuple[Kind, str] | None:
        recorded = {one.size for one in entries if one.size is not None}
        if recorded <= {info.size}:
            return None
        again = await self._space.head(info.key)
        if again is None or recorded <= {again.size}:
            return None
        return Kind.WRONG_SIZE, f"{again.size:,} bytes, recorded are {', '.join(f'{one:,}' for one in recorded)}"

    async def _wrong_digest(self, info: ObjectInfo, entries: Iterable[Entry]) -> tuple[Kind, str] | None:
        named = digest_of(info.key)
        expected = {named} if named else {one.digest for one in entries if one.digest}
        if not expected or secrets.randbelow(_PARTS) >= self._options.percent * _PARTS / 100:
            return None
        for _ in range(2):  # once more, before somebody is called out of bed
            try:
                digest, size = await digest_in(self._space, info.key)
            except NotFound:
                return None  # deleted meanwhile
            self.summary.digests += 1
            self.summary.digest_bytes += size
            if expected <= {digest}:
                return None
        return Kind.WRONG_DIGEST, f"its bytes have the SHA-256 {digest}"

    async def _unknown(self, info: ObjectInfo) -> None:
        """An object whose name the manifest does not know."""
        if digest_of(info.key) is None:
            if await self._space.head(info.key) is not None:
                self._found(Finding(Kind.FOREIGN, info.key, "no object of ours has such a name"))
            return
        try:
            heading = await stored_heading(self._space, info, self._spools)
        except NotFound:
            return  # removed meanwhile
        except InvalidInput as error:
            self._found(Finding(Kind.UNKNOWN, info.key, f"not recorded, and cannot be: {error}"))
            return
        instance = (heading.study_instance_uid, heading.series_instance_uid, heading.sop_instance_uid)
        finding = Finding(Kind.UNKNOWN, info.key, "not recorded", instance)
        self._found(await self._repair.record(info, heading, finding) if self._repair else finding)

    def _found(self, finding: Finding) -> None:
        self.summary.findings[finding.kind] += 1
        self.summary.repaired += finding.repaired is not None
        self._report(finding)


def _role(entries: Sequence[Entry]) -> Role:
    """What an object without an instance of ours is. What another provider's instance needs is never ours to remove."""
    roles = {one.role for one in entries if one.role is not Role.OTHER or one.instance_id is not None}
    order = (Role.REPLACED, Role.OTHER, Role.WAITING, Role.DELETED)
    return next((one for one in order if one in roles), Role.OTHER)


async def _flat(first: list[Entry], pages: AsyncIterator[list[Entry]]) -> AsyncIterator[Entry]:
    for one in first:
        yield one
    async for page in pages:
        for one in page:
            yield one
