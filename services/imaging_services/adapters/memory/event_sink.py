"""An event sink in memory, for tests and for trying things out."""

from imaging_services.domain.events.envelope import CloudEvent


class MemoryEventSink:
    """Twin of the ``EventSink`` adapters: ``events`` has every event handed in, once by id, in order.

    Set ``failure`` to have every call fail.
    """

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []
        self.sends = 0
        self.failure: Exception | None = None
        self._ids: set[str] = set()

    async def send(self, event: CloudEvent) -> None:
        """Take an event; the same id again changes nothing."""
        if self.failure is not None:
            raise self.failure
        self.sends += 1
        if event.id not in self._ids:
            self._ids.add(event.id)
            self.events.append(event)

    async def close(self) -> None:
        """Nothing to give back."""
