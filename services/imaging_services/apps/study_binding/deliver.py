"""One StudyRevisionEvent to its subscriber: read, select, keep the order of a study."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
from prometheus_client import Counter
from pydantic import ValidationError

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import STUDY_REVISION, CloudEvent
from imaging_services.domain.events.payloads import StudyRevision
from imaging_services.domain.events.selector import Selector
from imaging_services.domain.events.webhook import Webhook
from imaging_services.domain.pace import Pace

log = structlog.get_logger(__name__)

EVENTS = Counter("imaging_study_binding_events", "study revisions by outcome", ["outcome"])


class Subscriber(Protocol):
    """Who gets study revisions."""

    async def publish(self, event: CloudEvent, data: StudyRevision) -> None:
        """Return when the subscriber has it; raises an ImagingError otherwise."""
        ...


class WebhookSubscriber:
    """Gives revisions to a webhook as they are."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook

    async def publish(self, event: CloudEvent, data: StudyRevision) -> None:
        """Return when it has answered 2xx."""
        await self._webhook.post(event)


class DeliverStudy:
    """Handler of StudyRevisionEvents.

    A study goes out whole when one of its series comes from a selected provider; one that has no series left goes to
    everybody, since nothing tells any more whose it was. Revisions of one study are delivered one after another, of
    different studies at the same time.
    """

    def __init__(self, subscriber: Subscriber, selector: Selector, pace: Pace) -> None:
        self._subscriber = subscriber
        self._selector = selector
        self._pace = pace
        self._order = _OneAtATime()

    async def __call__(self, event: CloudEvent) -> None:
        """Deliver. Raises ``InvalidInput`` for an event that is no study revision, and what the subscriber raises."""
        try:
            delivered = await self._deliver(event, read_revision(event))
        except Exception:
            EVENTS.labels("failed").inc()
            raise
        EVENTS.labels("delivered" if delivered else "skipped").inc()

    async def _deliver(self, event: CloudEvent, data: StudyRevision) -> bool:
        study_uid = data.study.studyInstanceUID
        providers = [series.providerName or "" for series in data.study.series]
        if providers and not self._selector.matches_any(providers):
            log.debug("study of other providers skipped", study=study_uid, revision=data.revision)
            return False
        async with self._order.turn(study_uid), self._pace.turn():
            await self._subscriber.publish(event, data)
        log.info("study revision delivered", study=study_uid, revision=data.revision, event_id=event.id)
        return True


def read_revision(event: CloudEvent) -> StudyRevision:
    """The event's data. Raises ``InvalidInput`` that says what is wrong, without any value."""
    if event.type != STUDY_REVISION:
        raise InvalidInput(f"this binding takes {STUDY_REVISION}, not {event.type}")
    try:
        return StudyRevision.model_validate_json(event.data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"not the data of a {STUDY_REVISION}: {where or 'document'}: {first['msg']}") from None


class _OneAtATime:
    """Turns by key, first come first served; keys that nobody waits for are forgotten."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1
