"""Where an event goes, and how it is kept from coming back. Pure functions.

* An edge sends to the hub whatever began at the edge.
* A hub sends to the edge that the event names, by the attribute ``target`` or ``edgetarget`` or the member ``target``
  of its data (a location of the location file); without one to every edge, other than the one it came from.

An event carries where it began in the attribute ``bridgeorigin`` (``hub`` or a mailbox id) and in ``bridgehops`` how
many bridges it has passed. It keeps id, source and all else.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import orjson

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import BRIDGE_ORIGIN, CloudEvent

HUB = "hub"
HOPS = "bridgehops"
_TARGETS = ("target", "edgetarget")
_MAX_HOPS = 2  # edge to hub, hub to the other edges


def from_edge(event: CloudEvent) -> tuple[str, ...]:
    """The hub's mailbox, or none for an event that came through the bridge."""
    return () if BRIDGE_ORIGIN in event.extensions else (HUB,)


def from_hub(event: CloudEvent, locations: Mapping[str, str]) -> tuple[str, ...]:
    """Mailboxes of edges. Raises ``InvalidInput`` for a target that is no location."""
    if _hops(event) >= _MAX_HOPS:
        return ()
    target = _target(event)
    if target is None:
        mailboxes = set(locations.values())
    elif target in locations:
        mailboxes = {locations[target]}
    else:
        raise InvalidInput(f"event {event.id} has target {target[:80]!r}, which is no location of this hub")
    return tuple(sorted(mailboxes - {event.extensions.get(BRIDGE_ORIGIN)}))


def stamped(event: CloudEvent, own_mailbox: str) -> CloudEvent:
    """The event as it leaves through the bridge of this mailbox."""
    marks = {BRIDGE_ORIGIN: event.extensions.get(BRIDGE_ORIGIN, own_mailbox), HOPS: str(_hops(event) + 1)}
    return dataclasses.replace(event, extensions={**event.extensions, **marks})


def _hops(event: CloudEvent) -> int:
    hops = event.extensions.get(HOPS, "0")
    if not hops.isdecimal():
        raise InvalidInput(f"event {event.id} has {HOPS} {hops[:40]!r}, which is not a number")
    return int(hops)


def _target(event: CloudEvent) -> str | None:
    for name in _TARGETS:
        if name in event.extensions:
            return event.extensions[name]
    # The header of an image is long: look before it is parsed.
    if b'"target"' not in event.data:
        return None
    data: Any = orjson.loads(event.data)
    target = data.get("target") if isinstance(data, dict) else None
    return target if isinstance(target, str) else None
