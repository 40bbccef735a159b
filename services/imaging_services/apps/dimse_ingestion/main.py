"""The DIMSE ingestion: relay and listener → storage space and events; C-FIND from the manifest."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import structlog

from imaging_services.adapters.dimse.acceptor import listen
from imaging_services.adapters.dimse.contexts import Capabilities, choose_contexts, load_capabilities
from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.nats.relay import open_relay
from imaging_services.apps.dimse_ingestion.find import FIND_CLASSES, Finder
from imaging_services.apps.dimse_ingestion.holds import AssociationHolds
from imaging_services.apps.dimse_ingestion.intake import DirectHandler, Intake, RelayedHandler
from imaging_services.apps.dimse_ingestion.settings import Settings
from imaging_services.domain.ingest.ingest import Ingest
from imaging_services.runtime import Lifecycle
from imaging_services.wiring.archive import open_manifest, open_space
from imaging_services.wiring.events import open_sink

log = structlog.get_logger(__name__)

_PATIENCE = 5.0  # seconds in which the relay should be served before the ingestion is ready without it


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run until told to stop; what is under way is finished first."""
    settings.check()
    capabilities = load_capabilities(
        settings.DIMSE_CONFIG_PATH,
        accept_unknown=settings.DIMSE_ACCEPT_UNKNOWN_SOP_CLASSES,
        query_classes=FIND_CLASSES,
    )
    async with AsyncExitStack() as stack:
        manifest = await stack.enter_async_context(
            open_manifest(settings.postgres("dimse-ingestion"), settings.QUERY_ENDPOINT)
        )
        space = await stack.enter_async_context(open_space(settings.BUCKET_CONFIG_PATH, settings.BUCKET_SECRET_PATH))
        ingest = Ingest(
            space,
            await stack.enter_async_context(open_sink(settings, "dimse-ingestion")),
            FileSpools(settings.SPOOL_DIR),
            provider=settings.PROVIDER_NAME,
            source=settings.EVENT_SOURCE,
            wado_internal=settings.WADO_INTERNAL_ENDPOINT,
            wado_external=settings.WADO_EXTERNAL_ENDPOINT,
        )
        finder = Finder(manifest, provider=settings.PROVIDER_NAME, ae_title=settings.DIMSE_AE)
        holds = AssociationHolds(manifest, settings.DIMSE_ASSOCIATION_LEASE_SECONDS)
        await _serve(settings, lifecycle, Intake(ingest, finder, holds), holds, capabilities)


async def _serve(
    settings: Settings, lifecycle: Lifecycle, intake: Intake, holds: AssociationHolds, capabilities: Capabilities
) -> None:
    choose = partial(choose_contexts, capabilities=capabilities)
    direct = DirectHandler(intake, holds, settings.admission(), choose)
    listener = await listen(direct, settings.DIMSE_HOST, settings.DIMSE_PORT, settings.limits())
    log.info("dimse ingestion listens", host=settings.DIMSE_HOST, port=listener.port, ae_title=settings.DIMSE_AE)
    async with asyncio.TaskGroup() as tasks:
        work = [tasks.create_task(holds.keep())]
        if not settings.DIMSE_NATS_DISABLED:
            serving = asyncio.Event()
            relayed = RelayedHandler(intake, holds, choose)
            work.append(tasks.create_task(_take_relayed(settings, relayed, serving)))
            await _patiently(serving)
        lifecycle.ready.set()
        await lifecycle.stop.wait()
        await listener.close(settings.DRAIN_SECONDS)
        for task in work:
            task.cancel()


async def _take_relayed(settings: Settings, handler: RelayedHandler, serving: asyncio.Event) -> None:
    async with open_relay(settings.relay("dimse-ingestion", settings.DRAIN_SECONDS)) as relay:
        await relay.listen(handler, serving)


async def _patiently(serving: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(serving.wait(), _PATIENCE)
    except TimeoutError:
        log.warning("NATS is away: only direct associations are served until it comes")
