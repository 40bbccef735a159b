"""The DIMSE proxy: associations ⇄ relay over NATS ⇄ target AE."""

import asyncio

import structlog

from imaging_services.adapters.dimse.acceptor import listen
from imaging_services.adapters.dimse.contexts import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    choose_contexts,
    load_capabilities,
)
from imaging_services.adapters.dimse.pool import AssociationPool
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.nats.relay import NatsRelay, open_relay
from imaging_services.adapters.nats.relay_spool import RelaySpool
from imaging_services.apps.dimse_proxy.deliver import TargetHandler
from imaging_services.apps.dimse_proxy.edge.spool import Spool
from imaging_services.apps.dimse_proxy.relay import ProxyHandler
from imaging_services.apps.dimse_proxy.settings import Settings
from imaging_services.domain.relay.services import RELAYED_SERVICES
from imaging_services.runtime import Lifecycle

log = structlog.get_logger(__name__)

_PATIENCE = 5.0  # seconds in which NATS should be reached before the proxy is ready without it


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run until told to stop. NATS may be away, at the start too: C-STORE then gets A700H."""
    settings.check()
    capabilities = load_capabilities(
        settings.DIMSE_CONFIG_PATH,
        accept_unknown=settings.DIMSE_ACCEPT_UNKNOWN_SOP_CLASSES,
        query_classes=RELAYED_SERVICES,
        # the one that every AE has to accept, so the target does, too (PS3.5 section 10.1)
        query_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN),
    )
    relay_settings = settings.relay("dimse-proxy", settings.DRAIN_SECONDS)
    async with open_relay(relay_settings) as relay:
        spool = _spool(settings, relay)
        handler = ProxyHandler(
            relay,
            settings.admission(),
            lambda contexts: choose_contexts(contexts, capabilities),
            confirmed=settings.DIMSE_DELIVERY_MODE == "confirmed",
            lease_seconds=settings.DIMSE_ASSOCIATION_LEASE_SECONDS,
            spool=spool,
            urgency=settings.urgency(),
        )
        listener = await listen(
            handler,
            settings.DIMSE_HOST,
            settings.DIMSE_PORT,
            settings.limits(),
            reuse_port=lifecycle.worker is not None,
            tls=settings.listener_tls(),
            users=settings.users(),
        )
        log.info("dimse proxy listens", host=settings.DIMSE_HOST, port=listener.port, ae_title=settings.DIMSE_AE)
        async with asyncio.TaskGroup() as tasks:
            serving = asyncio.Event()
            work = [tasks.create_task(handler.renew())]
            if spool is not None:
                work.append(tasks.create_task(spool.watch(RelaySpool(relay_settings, relay.client))))
            # One process of several delivers: it alone knows the order of an instance's versions.
            if lifecycle.worker in (None, 1):
                work.append(tasks.create_task(_deliver(settings, relay, serving)))
            else:
                serving.set()
            if not await relay.wait_connected(_PATIENCE):
                log.warning("NATS is away: C-STORE is refused until it comes", url=settings.DIMSE_NATS_URL)
            else:
                await _patiently(serving)
            lifecycle.ready.set()
            await lifecycle.stop.wait()
            await listener.close(settings.DRAIN_SECONDS)
            for task in work:
                task.cancel()


def _spool(settings: Settings, relay: NatsRelay) -> Spool | None:
    """What waits beside the proxy, where its NATS server is a leaf node of its own."""
    if not settings.EDGE_DOMAIN:
        return None
    return Spool(
        relay,
        settings.EDGE_SPOOL_DIR,
        settings.EDGE_SPOOL_BYTES,
        settings.EDGE_DISK_RESERVE_BYTES,
        f"http://127.0.0.1:{settings.EDGE_MONITORING_PORT}",
    )


async def _patiently(serving: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(serving.wait(), _PATIENCE)
    except TimeoutError:
        log.warning("nothing is taken from the own channel yet")


async def _deliver(settings: Settings, relay: NatsRelay, serving: asyncio.Event) -> None:
    """Serve the own channel; ``serving`` is set once that is so, or once it is clear that it will not be."""
    if not settings.DIMSE_TARGET_HOST:
        serving.set()
        log.info("no target AE: nothing is taken from the own channel", channel=settings.DIMSE_NATS_SUBJECT_CHANNEL)
        return
    peer = RemoteAE(
        settings.DIMSE_TARGET_HOST,
        settings.DIMSE_TARGET_PORT,
        settings.limits(),
        tls=settings.target_tls(),
        operations=settings.DIMSE_MAX_OPERATIONS,
    )
    called = settings.DIMSE_TARGET_AE or settings.DIMSE_AE
    pool = AssociationPool(peer, settings.DIMSE_AE, called, settings.DIMSE_TARGET_ASSOCIATIONS)
    handler = TargetHandler(peer, pool, relay.report, calling=settings.DIMSE_AE, called=called)
    try:
        await relay.listen(handler, serving)
    finally:
        await handler.close()
        await pool.close()
