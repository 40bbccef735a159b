"""What fits into one NATS message."""

from collections.abc import Mapping

from nats.aio.client import Client

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import CloudEvent

# Room for the headers that a dead letter of the message gets: who gave up, when and why.
ROOM = 4096


def require_room(client: Client, event: CloudEvent, headers: Mapping[str, str], payload: bytes) -> None:
    """Raise ``InvalidInput`` for an event that the server would refuse.

    nats-py compares the payload alone with ``max_payload``; the server counts headers too, and answers a message
    above it by closing the connection, which would meet everybody who shares it.
    """
    size = len(payload) + sum(len(name) + len(value) + 4 for name, value in headers.items()) + ROOM
    if size > client.max_payload:
        raise InvalidInput(
            f"event {event.id} of {len(event.data)} bytes is larger than the NATS server's max_payload of "
            f"{client.max_payload} bytes allows"
        )
