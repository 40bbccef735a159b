"""Subscribers that can be made to refuse, to hang or to be away, and that remember only what they said yes to."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from support.fhir_server import FhirServer
from support.subscribers import Identity, Subscribers
from support.webhook import Receiver, Reply, Request, Webhook

HANGS = Reply(204, delay=30)


class _Faulty(Receiver):
    """``fault`` is answered instead of taking a request, which is then counted and forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Reply | None = None
        self.refused = 0

    def handle(self, request: Request) -> Reply:
        fault = self.fault
        if fault is None:
            return super().handle(request)
        self.refused += 1
        self._stopping.wait(fault.delay)
        return fault


class FaultyWebhook(_Faulty, Webhook):
    """A webhook."""


class FaultyFhirServer(_Faulty, FhirServer):
    """A FHIR server."""


@dataclass(frozen=True)
class FaultySubscribers(Subscribers):
    """One of each kind."""

    instances: FaultyWebhook
    studies: FaultyWebhook
    fhir: FaultyFhirServer

    def fail(self, fault: Reply | None) -> None:
        """All answer so from now on; None ends that."""
        for one in (self.instances, self.studies, self.fhir):
            one.fault = fault

    @property
    def refused(self) -> tuple[int, int, int]:
        """Requests that were not taken, by subscriber."""
        return self.instances.refused, self.studies.refused, self.fhir.refused

    def delivered_again(self, wanted: Collection[Identity]) -> dict[str, int]:
        """Deliveries of an event that its subscriber had said yes to before."""
        instances = Counter((event["source"], event["id"]) for event in self.instances.events)
        studies = Counter((event["source"], event["id"]) for event in self.studies.events)
        known = {event_id for one, ids in self.announced().items() if one in set(wanted) for event_id in ids}
        return {
            "instance binding": sum(count - 1 for (_, name), count in instances.items() if name in known),
            "study binding": sum(count - 1 for count in studies.values()),
        }


@contextmanager
def faulty_subscribers() -> Iterator[FaultySubscribers]:
    """Three of them."""
    with ExitStack() as stack:
        yield FaultySubscribers(
            stack.enter_context(FaultyWebhook()),
            stack.enter_context(FaultyWebhook()),
            stack.enter_context(FaultyFhirServer()),
        )
