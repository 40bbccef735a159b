"""What the queues have in common that one process empties: the handler, the order of versions, room and outages."""

import time
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from nats.aio.client import Client

from imaging_services.adapters.nats.relay_order import VersionOrder
from imaging_services.adapters.nats.relay_places import RelayPlace
from imaging_services.adapters.nats.relay_pull import ENVELOPE
from imaging_services.adapters.nats.relay_room import Lane, Room
from imaging_services.adapters.nats.relay_settings import RelaySettings
from imaging_services.adapters.nats.relay_turns import Turns
from imaging_services.domain.relay.ports import RelayHandler
from imaging_services.domain.relay.retry import RetryPolicy

_AHEAD = 8  # messages fetched for each one at work: a long round trip must not leave the receiver idle
_FOR_URGENT = 4  # a quarter more is kept free for urgent stores
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0  # seconds


class Receiving:
    """Of all domains and priorities. ``home`` is where dead letters are kept; None: where they come from.

    Urgent stores have room and turns of their own, so that neither kind waits behind the other.
    """

    def __init__(self, client: Client, settings: RelaySettings, handler: RelayHandler) -> None:
        self.client, self.settings, self.handler = client, settings, handler
        self.home: RelayPlace | None = None
        self.order = VersionOrder()
        self.policy = RetryPolicy(settings.max_tries, timedelta(seconds=settings.outage_seconds))
        most, size, largest = settings.max_in_flight, settings.max_in_flight_bytes, client.max_payload + ENVELOPE
        urgent = max(most // _FOR_URGENT, 1)
        joined = bool(settings.receive_domains) or settings.discovers_domains
        self._rooms = {
            False: Room(_AHEAD * most, size, largest, joined=joined),
            True: Room(_AHEAD * urgent, size // _FOR_URGENT, largest, joined=joined),
        }
        self._turns = {False: Turns(most), True: Turns(urgent)}
        self._away_since: float | None = None

    def lane(self, domain: str | None, *, urgent: bool) -> Lane:
        """Room for one more queue."""
        self._turns[urgent].join(domain)
        return self._rooms[urgent].lane()

    def turn(self, domain: str | None, *, urgent: bool) -> AbstractAsyncContextManager[None]:
        """To be held while a store of the domain is at work."""
        return self._turns[urgent].turn(domain)

    def is_away(self) -> bool:
        """The receiver cannot be reached."""
        return self._away_since is not None

    def back(self) -> None:
        """The receiver has taken something."""
        self._away_since = None

    def away(self) -> None:
        """The receiver could not be reached: fetch nothing for a while, longer each time."""
        now = time.monotonic()
        self._away_since = self._away_since or now
        pause = min(max(now - self._away_since, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        for room in self._rooms.values():
            room.pause(pause)
