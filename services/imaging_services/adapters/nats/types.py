"""nats-py's types for signatures outside this adapter, where the library itself is not imported."""

from nats.aio.client import Client as NatsClient

__all__ = ["NatsClient"]
