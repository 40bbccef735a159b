"""A storage space with its manifest on PostgreSQL, filled by an ingestion, as audits see it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom

from imaging_services.adapters.files.listing import sorted_listing
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.memory.spools import MemorySpools
from imaging_services.adapters.postgres.audit import PostgresAudit
from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.adapters.postgres.pool import Pool
from imaging_services.adapters.postgres.rebuild import PostgresRebuild
from imaging_services.adapters.s3.space import open_space
from imaging_services.domain.audit.audit import Audit, AuditOptions
from imaging_services.domain.audit.model import Finding, Summary
from imaging_services.domain.audit.rebuild import Progress, Rebuild
from imaging_services.domain.audit.repair import Repair
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.ingest.announcement import Provenance
from imaging_services.domain.ingest.ingest import Ingest, Ingested
from imaging_services.domain.manifest.deletion import deletion_events
from imaging_services.domain.manifest.query import Scope
from imaging_services.domain.ports import Manifest, ObjectStore
from support.azurite import Azurite
from support.dicomweb_stack import write_bucket
from support.instances import EXPLICIT, blocks, encoded
from support.manifests import migrated_pool

PROVIDER = "north"
WADO = "http://north.internal/wado-rs"


class Handing:
    """Hands events to a manifest, as the event processor does; None: loses them, as a crash does."""

    def __init__(self, manifest: Manifest | None) -> None:
        self._manifest = manifest

    async def send(self, event: CloudEvent) -> None:
        refused = (await self._manifest.record([event]))[0] if self._manifest is not None else None
        if refused is not None:
            raise refused

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Archive:
    """``pool`` is the manifest's database."""

    space: ObjectStore
    pool: Pool
    findings: list[Finding] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def manifest(self) -> PostgresManifest:
        return PostgresManifest(self.pool, "processor.test")

    def audited(self) -> PostgresAudit:
        return PostgresAudit(self.pool, PROVIDER, self.space.bucket_name)

    def provenance(self) -> Provenance:
        return Provenance(PROVIDER, "ingestion.test", self.space.bucket_name, WADO, None)

    async def store(
        self,
        dataset: pydicom.Dataset,
        *,
        recorded: bool = True,
        provider: str = PROVIDER,
        at: datetime | None = None,
        syntax: str = EXPLICIT,
    ) -> Ingested:
        """Take in an instance; without ``recorded`` only its object is written."""
        sink: Any = Handing(self.manifest if recorded else None)
        ingest = Ingest(
            self.space, sink, MemorySpools(), provider=provider, source="ingestion.test", wado_internal=WADO
        )
        return await ingest.receive(blocks(encoded(dataset, syntax)), transfer_syntax=syntax, accepted_at=at)

    async def delete(self, study: str) -> None:
        """Delete a study from the manifest; its objects wait to be removed."""
        locations = await self.manifest.locate(Scope(study, provider=PROVIDER))
        for event in deletion_events("test", PROVIDER, locations):
            assert await self.manifest.record([event]) == [None]

    async def rebuild(
        self,
        space: ObjectStore,
        *,
        announce: bool = False,
        first_revision: int = 1000,
        since: datetime | None = None,
        folder: Path | None = None,
        dry_run: bool = False,
        go_on: bool = True,
    ) -> Progress:
        """Fill this manifest from a space; what could not be recorded is then in ``refused``, by key."""
        manifest = PostgresRebuild(self.pool, "processor.test", announce=announce, first_revision=first_revision)
        if not dry_run:
            await manifest.begin(PROVIDER, go_on=go_on)
        async with sorted_listing(folder) as listing:
            work = Rebuild(
                space,
                listing,
                MemorySpools(),
                Provenance(PROVIDER, "ingestion.test", space.bucket_name, WADO, None),
                None if dry_run else manifest,
                since=since,
                failed=self.refused.__setitem__,
                told=lambda progress: None,
            )
            progress = await work.run()
            await manifest.finish(PROVIDER)
            return progress

    async def audit(
        self,
        *,
        repair: bool = False,
        newest_wins: bool = False,
        mark_all: bool = False,
        percent: float = 100,
        grace: float = 0,
        after: str = "",
    ) -> Summary:
        """Run an audit; what it found is then in ``findings``, by key."""
        self.findings = []
        mending = Repair(self.space, self.audited(), Handing(self.manifest), self.provenance(), newest_wins, mark_all)
        options = AuditOptions(percent, timedelta(seconds=grace), after)
        audit = Audit(
            self.space,
            self.audited(),
            MemorySpools(),
            options,
            report=self.findings.append,
            repair=mending if repair else None,
        )
        summary = await audit.run()
        self.findings.sort(key=lambda one: one.key)
        return summary

    def found(self) -> set[tuple[str, str]]:
        """Kind and key of each finding."""
        return {(str(one.kind), one.key) for one in self.findings}

    def of(self, key: str) -> Finding:
        """What was found at this key."""
        (finding,) = [one for one in self.findings if one.key == key]
        return finding


def opened_space(kind: str, request: Any, folder: Path) -> ObjectStore:
    """``memory``, ``folder``, ``s3`` or ``azure``: empty."""
    if kind == "memory":
        return MemoryObjectStore()
    if kind == "folder":
        (folder / "bucket").mkdir()
        (folder / "objects").mkdir()
        (folder / "bucket" / "LOCAL_STORAGE_PATH").write_text(str(folder / "objects"))
        return open_space(folder / "bucket", None)
    server: Any = request.getfixturevalue(f"{'azurite' if kind == 'azure' else 's3'}_server")
    place = request.getfixturevalue("container" if isinstance(server, Azurite) else "bucket")
    return open_space(write_bucket(folder, server, place), None)


@asynccontextmanager
async def archive(database: Any, space: ObjectStore) -> AsyncIterator[Archive]:
    """A space with an empty manifest."""
    async with migrated_pool(database) as pool:
        try:
            yield Archive(space, pool)
        finally:
            await space.close()
