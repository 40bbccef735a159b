"""One DicomAvailableEvent to its target: read, select, fetch, hand on."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog
from prometheus_client import Counter
from pydantic import ValidationError

from imaging_services.apps.instance_binding.instance import Instance
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, CloudEvent
from imaging_services.domain.events.payloads import DicomAvailable
from imaging_services.domain.events.selector import Selector
from imaging_services.domain.events.webhook import Webhook
from imaging_services.domain.pace import Pace

log = structlog.get_logger(__name__)

EVENTS = Counter("imaging_instance_binding_events", "announced instances by outcome", ["outcome"])


class Source(Protocol):
    """Where announced instances are fetched."""

    def fetch(self, endpoint: str) -> AbstractAsyncContextManager[Instance]:
        """The instance at this URL, for the length of the context."""
        ...


class Target(Protocol):
    """Who stores instances."""

    async def send(self, instance: Instance) -> None:
        """Return when the target has said yes; raises an ImagingError otherwise."""
        ...


class Subscriber(Protocol):
    """Who gets announcements."""

    async def announce(self, event: CloudEvent, data: DicomAvailable) -> None:
        """Return when the subscriber has it; raises an ImagingError otherwise."""
        ...


class Forwarder:
    """Fetches what is announced and hands it on to a target."""

    def __init__(self, source: Source, target: Target) -> None:
        self._source = source
        self._target = target

    async def announce(self, event: CloudEvent, data: DicomAvailable) -> None:
        """Return when the target has the instance."""
        async with self._source.fetch(data.endpoint) as instance:
            await self._target.send(instance)


class WebhookSubscriber:
    """Gives announcements to a webhook as they are."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook

    async def announce(self, event: CloudEvent, data: DicomAvailable) -> None:
        """Return when it has answered 2xx."""
        await self._webhook.post(event)


class DeliverInstance:
    """Handler of DicomAvailableEvents; instances are delivered in any order, several at a time."""

    def __init__(self, subscriber: Subscriber, selector: Selector, pace: Pace) -> None:
        self._subscriber = subscriber
        self._selector = selector
        self._pace = pace

    async def __call__(self, event: CloudEvent) -> None:
        """Deliver. Raises ``InvalidInput`` for an event that is no announcement, and what the subscriber raises."""
        try:
            delivered = await self._deliver(event, read_available(event))
        except Exception:
            EVENTS.labels("failed").inc()
            raise
        EVENTS.labels("delivered" if delivered else "skipped").inc()

    async def _deliver(self, event: CloudEvent, data: DicomAvailable) -> bool:
        if not self._selector.matches(data.provider):
            log.debug("instance of another provider skipped", provider=data.provider, event_id=event.id)
            return False
        async with self._pace.turn():
            await self._subscriber.announce(event, data)
        log.debug("instance delivered", endpoint=data.endpoint, event_id=event.id)
        return True


def read_available(event: CloudEvent) -> DicomAvailable:
    """The event's data. Raises ``InvalidInput`` that says what is wrong."""
    if event.type != DICOM_AVAILABLE:
        raise InvalidInput(f"this binding takes {DICOM_AVAILABLE}, not {event.type}")
    try:
        return DicomAvailable.model_validate_json(event.data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"not the data of a {DICOM_AVAILABLE}: {where or 'document'}: {first['msg']}") from None
