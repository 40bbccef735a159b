"""Wiring of the instance binding: DicomAvailableEvents to STOW-RS, C-STORE or a webhook."""

from contextlib import AsyncExitStack

from imaging_services.adapters.dimse.pool import AssociationPool
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.files.spool import FileSpools
from imaging_services.apps.instance_binding.c_store import CStoreTarget
from imaging_services.apps.instance_binding.deliver import DeliverInstance, Forwarder, Subscriber, WebhookSubscriber
from imaging_services.apps.instance_binding.fetch import WadoSource
from imaging_services.apps.instance_binding.settings import Settings
from imaging_services.apps.instance_binding.stow import StowTarget
from imaging_services.domain.events.envelope import DICOM_AVAILABLE
from imaging_services.domain.events.selector import Selector
from imaging_services.domain.events.webhook import Webhook
from imaging_services.runtime import Lifecycle
from imaging_services.subscription import consumer_name, take_events


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Deliver until told to stop."""
    async with AsyncExitStack() as stack:
        subscriber = await _subscriber(settings, stack)
        deliver = DeliverInstance(subscriber, Selector.parse(settings.SELECTOR), settings.pace())
        consumer = consumer_name(settings, "instance-binding", settings.target)
        await take_events(settings, lifecycle, consumer, frozenset({DICOM_AVAILABLE}), deliver)


async def _subscriber(settings: Settings, stack: AsyncExitStack) -> Subscriber:
    if settings.mode == "WEBHOOK_ENDPOINT":
        target = settings.http_target(settings.WEBHOOK_ENDPOINT, settings.WEBHOOK_AUTH_TOKEN)
        return WebhookSubscriber(Webhook(await stack.enter_async_context(target)))
    # The endpoints of events are absolute: the address here only stands where the client wants one.
    wado = await stack.enter_async_context(settings.http_target("http://localhost"))
    source = WadoSource(wado, FileSpools(settings.SPOOL_DIR), settings.WADO_AUTH_TOKEN.get_secret_value())
    if settings.mode == "STOW_ENDPOINT":
        target = settings.http_target(settings.STOW_ENDPOINT, settings.STOW_AUTH_TOKEN)
        return Forwarder(source, StowTarget(await stack.enter_async_context(target)))
    pool = _pool(settings)
    stack.push_async_callback(pool.close)
    return Forwarder(source, CStoreTarget(pool))


def _pool(settings: Settings) -> AssociationPool:
    limits = AssociationLimits(dimse_timeout_seconds=settings.TARGET_TIMEOUT_SECONDS)
    peer = RemoteAE(
        settings.DIMSE_TARGET_HOST,
        settings.DIMSE_TARGET_PORT,
        limits,
        tls=settings.target_tls(),
        operations=limits.max_operations,
    )
    return AssociationPool(
        peer,
        settings.DIMSE_AE,
        settings.DIMSE_TARGET_AE,
        max_associations=settings.DIMSE_MAX_ASSOCIATIONS,
        idle_seconds=settings.DIMSE_IDLE_SECONDS,
    )
