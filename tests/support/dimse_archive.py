"""The DIMSE ingestion on memory: its handler behind a real listener, over in-memory manifest and storage space."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pydicom

from imaging_services.adapters.dimse.acceptor import listen
from imaging_services.adapters.dimse.contexts import choose_contexts, load_capabilities
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.tls_settings import TargetTlsVariables
from imaging_services.adapters.memory.jobs import MemoryJobs
from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.memory.spools import MemorySpools
from imaging_services.adapters.pixels.transcoder import Transcoder
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dimse_ingestion.commitment import Commitment
from imaging_services.apps.dimse_ingestion.find import FIND_CLASSES, Finder
from imaging_services.apps.dimse_ingestion.holds import AssociationHolds
from imaging_services.apps.dimse_ingestion.intake import DirectHandler, Intake
from imaging_services.apps.dimse_ingestion.known_aes import KNOWN_AES_FILE, KnownAes
from imaging_services.apps.dimse_ingestion.move_jobs import MoveJobs
from imaging_services.apps.dimse_ingestion.outgoing import Outbox
from imaging_services.apps.dimse_ingestion.reports import Reporter
from imaging_services.apps.dimse_ingestion.retrieve import Retriever
from imaging_services.apps.dimse_ingestion.selection import GET_CLASSES, MOVE_CLASSES
from imaging_services.apps.dimse_ingestion.transactions import STORAGE_COMMITMENT
from imaging_services.apps.dimse_ingestion.verification import Verifier
from imaging_services.apps.dimse_ingestion.ways import Ways
from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.ingest.ingest import Ingest
from imaging_services.domain.jobs import Jobs
from imaging_services.domain.relay.admission import Admission
from imaging_services.domain.relay.ports import RelayLink
from support.dicomweb_in_memory import RecordingSink
from support.instances import EXPLICIT, blocks, encoded

TITLE = "ARCHIVE"
LIMITS = AssociationLimits(dimse_timeout_seconds=30)


@dataclass
class Archive:
    """A running archive; ``intake`` also serves what comes over a relay."""

    port: int
    space: MemoryObjectStore
    manifest: MemoryManifest
    intake: Intake
    holds: AssociationHolds

    async def keep(self, *datasets: pydicom.Dataset, syntax: str = EXPLICIT, content: bytes | None = None) -> None:
        """Store instances, as a modality does; ``content`` instead of the encoded data set."""
        for dataset in datasets:
            command = store_request(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
            data = blocks(content or encoded(dataset, syntax))
            await self.intake.store("test", command, syntax, data, direct=False)

    def objects(self) -> list[str]:
        return list(self.space.objects)


@asynccontextmanager
async def archive(
    folder: Path,
    known: Mapping[str, int | str],
    *,
    transcoding: bool = False,
    same_association_seconds: float = 0,
    jobs: Jobs | None = None,
    port: int = 0,
    asynchronous: bool = False,
    tls: TargetTlsVariables | None = None,
    relay: RelayLink | None = None,
) -> AsyncIterator[Archive]:
    """An archive that knows AEs by title and port on this machine, a text such as ``2762,tls`` with TLS; ``relay`` is
    the way to a proxy."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{title}:127.0.0.1:{port}" for title, port in known.items()]
    (folder / KNOWN_AES_FILE).write_text("\n".join(lines))
    manifest, space = MemoryManifest("test"), MemoryObjectStore()
    holds = AssociationHolds(manifest, 60)
    ingest = Ingest(space, RecordingSink(manifest), MemorySpools(), provider="space", source="test")
    ways = Ways(TITLE, LIMITS, (tls or TargetTlsVariables()).client_tls, relay)
    workers = PixelWorkers()
    moves = MoveJobs(MemoryJobs(patience=0.02), timedelta(seconds=60)) if asynchronous else None
    outbox = Outbox(space, Transcoder(space, workers) if transcoding else None)
    retriever = Retriever(manifest, outbox, KnownAes(folder), ways, provider="space", later=moves)
    verifier = Verifier(manifest, space, provider="space")
    reporter = Reporter(KnownAes(folder), ways, TITLE, same_association_seconds)
    commitment = Commitment(jobs or MemoryJobs(patience=0.02), verifier, reporter, timedelta(seconds=60))
    intake = Intake(ingest, Finder(manifest, provider="space", ae_title=TITLE), retriever, commitment, holds)
    capabilities = load_capabilities(
        None, query_classes=FIND_CLASSES | MOVE_CLASSES | GET_CLASSES | {STORAGE_COMMITMENT}
    )
    choose = partial(choose_contexts, capabilities=capabilities)
    handler = DirectHandler(intake, holds, Admission(frozenset({TITLE}), frozenset(), True), choose)
    listener = await listen(handler, "127.0.0.1", port, LIMITS)
    work = [commitment.work(), *([moves.work(retriever)] if moves else [])]
    working = [asyncio.create_task(one) for one in work]
    try:
        yield Archive(listener.port, space, manifest, intake, holds)
    finally:
        await listener.close(1)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        workers.close()
