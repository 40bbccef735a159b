"""The two verbs of the bridge: send a local event to mailboxes, hand in what arrives in the own one."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from imaging_services.apps.event_bridge.locations import EdgeLocations
from imaging_services.apps.event_bridge.routing import from_edge, from_hub, stamped
from imaging_services.apps.event_bridge.turns import Turns
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.ports import EventSink

log = structlog.get_logger(__name__)

Route = Callable[[CloudEvent], Awaitable[tuple[str, ...]]]


class Mailboxes(Protocol):
    """Where events for other clusters are put."""

    async def post(self, mailbox: str, event: CloudEvent) -> None:
        """Durable on return; the same event is kept once."""
        ...


def route_of(locations: EdgeLocations | None) -> Route:
    """The hub's rule when there are locations, else an edge's."""

    async def route(event: CloudEvent) -> tuple[str, ...]:
        return from_edge(event) if locations is None else from_hub(event, await locations.current())

    return route


class Forward:
    """Sends a local event on its way. A try after a failure posts to every mailbox again, which keeps it once."""

    def __init__(self, own_mailbox: str, route: Route, mailboxes: Mailboxes) -> None:
        self._own_mailbox = own_mailbox
        self._route = route
        self._mailboxes = mailboxes
        self._turns = Turns()

    async def __call__(self, event: CloudEvent) -> None:
        """Return when the event is in each mailbox that it belongs in; none is fine.

        Raises ``InvalidInput`` for an unknown target, a RetryableError when a mailbox cannot be reached.
        """
        async with self._turns.turn(event):
            targets = await self._route(event)
            for mailbox in targets:
                await self._mailboxes.post(mailbox, stamped(event, self._own_mailbox))
        log.debug("event forwarded", id=event.id, type=event.type, mailboxes=targets)


class Receive:
    """Hands in what arrived: the processor records an ``ImageStoredEvent`` and appends the other types to the log."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._turns = Turns()

    async def __call__(self, event: CloudEvent) -> None:
        """Return when the event is safe here; only then does it leave the mailbox."""
        async with self._turns.turn(event):
            await self._sink.send(event)
        log.debug("event received", id=event.id, type=event.type)
