"""The DIMSE ingestion: relay and listener → storage space and events; C-FIND from the manifest."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial

import structlog

from imaging_services.adapters.dimse.acceptor import listen
from imaging_services.adapters.dimse.contexts import Capabilities, choose_contexts, load_capabilities
from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.memory.jobs import MemoryJobs
from imaging_services.adapters.nats.jobs import NatsJobs
from imaging_services.adapters.nats.relay import NatsRelay, open_relay
from imaging_services.adapters.pixels.transcoder import Transcoder
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dimse_ingestion.commitment import AT_WORK, Commitment
from imaging_services.apps.dimse_ingestion.find import FIND_CLASSES, Finder
from imaging_services.apps.dimse_ingestion.holds import AssociationHolds
from imaging_services.apps.dimse_ingestion.intake import DirectHandler, Intake, RelayedHandler
from imaging_services.apps.dimse_ingestion.known_aes import KnownAes
from imaging_services.apps.dimse_ingestion.move_jobs import MOVES_AT_WORK, MoveJobs
from imaging_services.apps.dimse_ingestion.outgoing import Outbox
from imaging_services.apps.dimse_ingestion.reports import Reporter
from imaging_services.apps.dimse_ingestion.retrieve import Retriever
from imaging_services.apps.dimse_ingestion.selection import GET_CLASSES, MOVE_CLASSES
from imaging_services.apps.dimse_ingestion.settings import Settings
from imaging_services.apps.dimse_ingestion.transactions import STORAGE_COMMITMENT
from imaging_services.apps.dimse_ingestion.verification import Verifier
from imaging_services.apps.dimse_ingestion.ways import Ways
from imaging_services.domain.ingest.ingest import Ingest
from imaging_services.domain.jobs import Jobs
from imaging_services.domain.ports import ObjectStore
from imaging_services.runtime import Lifecycle
from imaging_services.wiring.archive import open_manifest, open_space
from imaging_services.wiring.direct import open_recording_sink

log = structlog.get_logger(__name__)

_PATIENCE = 5.0  # seconds in which the relay should be served before the ingestion is ready without it


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run until told to stop; what is under way is finished first."""
    settings.check()
    capabilities = load_capabilities(
        settings.DIMSE_CONFIG_PATH,
        accept_unknown=settings.DIMSE_ACCEPT_UNKNOWN_SOP_CLASSES,
        query_classes=FIND_CLASSES | MOVE_CLASSES | GET_CLASSES | {STORAGE_COMMITMENT},
    )
    known = KnownAes(settings.DIMSE_CONFIG_PATH)
    async with AsyncExitStack() as stack:
        manifest = await stack.enter_async_context(
            open_manifest(settings.postgres("dimse-ingestion"), settings.QUERY_ENDPOINT)
        )
        space = await stack.enter_async_context(
            open_space(settings.BUCKET_CONFIG_PATH, settings.BUCKET_SECRET_PATH, settings)
        )
        ingest = Ingest(
            space,
            await stack.enter_async_context(open_recording_sink(settings, "dimse-ingestion", settings.EVENT_SOURCE)),
            FileSpools(settings.SPOOL_DIR),
            provider=settings.PROVIDER_NAME,
            source=settings.EVENT_SOURCE,
            wado_internal=settings.WADO_INTERNAL_ENDPOINT,
            wado_external=settings.WADO_EXTERNAL_ENDPOINT,
        )
        finder = Finder(manifest, provider=settings.PROVIDER_NAME, ae_title=settings.DIMSE_AE)
        holds = AssociationHolds(manifest, settings.DIMSE_ASSOCIATION_LEASE_SECONDS)
        relay = await stack.enter_async_context(_opened_relay(settings))
        ways = Ways(settings.DIMSE_AE, settings.limits(), settings.client_tls, relay)
        outbox = Outbox(space, stack.enter_context(_opened_transcoder(settings, space)))
        moves = MoveJobs(_jobs("move", settings, relay, MOVES_AT_WORK), timedelta(hours=settings.DIMSE_MOVE_HOURS))
        later = moves if settings.DIMSE_MOVE_MODE == "asynchronous" else None
        retriever = Retriever(manifest, outbox, known, ways, provider=settings.PROVIDER_NAME, later=later)
        commitment = Commitment(
            _jobs("commitment", settings, relay, AT_WORK),
            Verifier(manifest, space, provider=settings.PROVIDER_NAME),
            Reporter(known, ways, settings.DIMSE_AE, settings.DIMSE_COMMITMENT_WAIT_SECONDS),
            timedelta(hours=settings.DIMSE_COMMITMENT_HOURS),
        )
        intake = Intake(ingest, finder, retriever, commitment, holds)
        async with asyncio.TaskGroup() as tasks:
            # moves also when none is taken on any more: there may be some of the time when they were
            working = [tasks.create_task(commitment.work()), tasks.create_task(moves.work(retriever))]
            await _serve(settings, lifecycle, intake, holds, capabilities, relay)
            for task in working:
                task.cancel()


def _jobs(kind: str, settings: Settings, relay: NatsRelay | None, at_a_time: int) -> Jobs:
    """What is promised outlives a restart where there is NATS."""
    if relay is None:
        return MemoryJobs(concurrency=at_a_time)
    connection = settings.relay("dimse-ingestion", settings.DRAIN_SECONDS)
    return NatsJobs(kind, connection, relay.client, relay.first_client, concurrency=at_a_time)


@asynccontextmanager
async def _opened_relay(settings: Settings) -> AsyncIterator[NatsRelay | None]:
    if settings.DIMSE_NATS_DISABLED:
        yield None
        return
    async with open_relay(settings.relay("dimse-ingestion", settings.DRAIN_SECONDS)) as relay:
        yield relay


@contextmanager
def _opened_transcoder(settings: Settings, space: ObjectStore) -> Iterator[Transcoder | None]:
    if not settings.DIMSE_RETRIEVE_TRANSCODING:
        yield None
        return
    workers = PixelWorkers()
    try:
        yield Transcoder(space, workers)
    finally:
        workers.close()


async def _serve(
    settings: Settings,
    lifecycle: Lifecycle,
    intake: Intake,
    holds: AssociationHolds,
    capabilities: Capabilities,
    relay: NatsRelay | None,
) -> None:
    choose = partial(choose_contexts, capabilities=capabilities)
    direct = DirectHandler(intake, holds, settings.admission(), choose, settings.urgency())
    listener = await listen(
        direct,
        settings.DIMSE_HOST,
        settings.DIMSE_PORT,
        settings.limits(),
        reuse_port=lifecycle.worker is not None,
        tls=settings.listener_tls(),
        users=settings.users(),
    )
    log.info("dimse ingestion listens", host=settings.DIMSE_HOST, port=listener.port, ae_title=settings.DIMSE_AE)
    async with asyncio.TaskGroup() as tasks:
        work = [tasks.create_task(holds.keep())]
        if relay is not None:
            serving = asyncio.Event()
            relayed = RelayedHandler(intake, holds, choose, settings.urgency())
            work.append(tasks.create_task(relay.listen(relayed, serving)))
            await _patiently(serving)
        lifecycle.ready.set()
        await lifecycle.stop.wait()
        await listener.close(settings.DRAIN_SECONDS)
        for task in work:
            task.cancel()


async def _patiently(serving: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(serving.wait(), _PATIENCE)
    except TimeoutError:
        log.warning("NATS is away: only direct associations are served until it comes")
