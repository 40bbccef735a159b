"""Where a relay's streams are: the JetStream domain of the server that is connected, or another one's."""

from dataclasses import dataclass

from nats.aio.client import Client
from nats.js import JetStreamContext

from imaging_services.adapters.nats.relay_objects import ObjectBucket
from imaging_services.domain.nats_names import token
from imaging_services.domain.relay.subjects import RelaySubjects


@dataclass(frozen=True, slots=True)
class RelayPlace:
    """The streams and the bucket of one channel in one domain, None being the own one."""

    domain: str | None
    js: JetStreamContext
    subjects: RelaySubjects
    bucket: ObjectBucket

    @property
    def worker(self) -> str:
        """Name of the durable consumers. Acknowledgements are addressed by the names of stream and consumer alone,
        unless the server names the domain too (its feature ``js_ack_fc_v2``): those of two domains must differ, or one
        would take the other's acknowledgements."""
        return self.subjects.worker if self.domain is None else self._worker_of_many(self.domain)

    @property
    def other_worker(self) -> str | None:
        """Name of the durable consumers of a receiver of a former version in another domain."""
        return None if self.domain is None else self.subjects.worker

    def _worker_of_many(self, domain: str) -> str:
        return f"{self.subjects.worker}-{token(domain)}"


def place_in(client: Client, domain: str | None, subjects: RelaySubjects, timeout: float) -> RelayPlace:
    """``timeout`` are the seconds for each answer of the server about the bucket."""
    # The answers of another domain come behind the images on its line, which may be slow.
    js = client.jetstream(domain=domain, timeout=timeout) if domain else client.jetstream()
    return RelayPlace(domain, js, subjects, ObjectBucket(js, subjects.bucket, timeout))
