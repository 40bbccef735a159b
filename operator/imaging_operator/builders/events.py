"""The event log of a DicomEventDrivenIngestion: where it is, and how pods are told."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from imaging_operator.builders.certificates import client_files, client_mounts
from imaging_operator.builders.environment import SecretKey, Value, boolean
from imaging_operator.builders.pod import Mount
from imaging_operator.builders.scaling import Lag
from imaging_operator.builders.servers import first_host, reachable
from imaging_operator.errors import Wrong
from imaging_operator.specs.connections import ClientTls
from imaging_operator.specs.event_driven_ingestion import EventDrivenIngestionSpec
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.events.subjects import EventSubjects, urgent_durable
from imaging_services.domain.nats_names import token

TOKEN_KEY = "token"  # noqa: S105 - the key's name
_MONITORING_PORT = 8222
_ACCOUNT = "$G"
_USE = "events"


@dataclass(frozen=True, slots=True)
class EventLog:
    """A JetStream event log."""

    namespace: str
    """Of the resource: names without a dot are Services there."""
    url: str
    secure: bool
    root: str
    stream: str
    token_secret: str
    tls: ClientTls | None
    replicas: int
    retention_days: int | None
    domain: str

    @property
    def subjects(self) -> EventSubjects:
        """Names of its streams and subjects."""
        return EventSubjects(self.root, self.stream)

    def producer(self) -> dict[str, Value]:
        """Variables of who hands in events."""
        found: dict[str, Value] = {
            "EVENTS_NATS_URL": self.url,
            "EVENTS_NATS_TLS_ENABLED": boolean(self.secure),
            "EVENTS_NATS_SUBJECT_ROOT": self.root,
            "EVENTS_STREAM": self.stream,
        }
        names = ("EVENTS_NATS_TLS_CA_FILE", "EVENTS_NATS_TLS_CERT_FILE", "EVENTS_NATS_TLS_KEY_FILE")
        found |= client_files(self.tls, _USE, names)
        if self.token_secret:
            found["EVENTS_NATS_AUTH_TOKEN"] = SecretKey(self.token_secret, TOKEN_KEY)
        return found

    def consumer(self) -> dict[str, Value]:
        """Variables of who appends to the log or consumes it, and so may create its streams."""
        found = self.producer() | {"EVENTS_REPLICAS": str(self.replicas)}
        if self.retention_days is not None:
            found["EVENTS_RETENTION_DAYS"] = str(self.retention_days)
        if self.domain:
            found["EVENTS_NATS_DOMAIN"] = self.domain
        return found

    def mounts(self) -> list[Mount]:
        """Certificates."""
        return client_mounts(self.tls, _USE)

    def lag(self, consumer: str, settings: Any, *, urgent: bool) -> Lag:
        """What KEDA looks at for one durable consumer, with ``urgent`` for that of its urgent events as well. A former
        version has none, and KEDA takes the whole log for the lag of a consumer that does not exist."""
        lag = nats_lag(self.url, self.namespace, self.subjects.event_stream, token(consumer), settings)
        return replace(lag, urgent=urgent_durable(consumer)) if urgent else lag


def event_log(namespace: str, name: str, spec: EventDrivenIngestionSpec, settings: Any) -> EventLog:
    """The log of the DicomEventDrivenIngestion ``name``. Raises ``Wrong`` when nobody says where NATS is.

    Without ``eventStream`` the log is named by namespace and name: an underscore is in neither, so that no two
    resources of a cluster share a log.
    """
    own = bool(spec.nats_url)
    url = spec.nats_url or settings.EVENTS_NATS_URL
    if not url:
        raise Wrong(
            "No NATS server for events: set spec.natsUrl, or the operator's EVENTS_NATS_URL (chart value nats.url)"
        )
    log = EventLog(
        namespace=namespace,
        url=url,
        secure=spec.nats_secure if own else spec.nats_secure or settings.EVENTS_NATS_TLS_ENABLED,
        root=spec.nats_subject_root or settings.EVENTS_NATS_SUBJECT_ROOT,
        stream=spec.event_stream or f"{namespace}_{name}",
        token_secret=spec.nats_token_secret,
        tls=spec.nats_tls,
        replicas=spec.stream_replicas,
        retention_days=spec.event_retention_days,
        domain=spec.jet_stream_domain,
    )
    refused(lambda: log.subjects.ingress)
    first_host(url)  # the pods could not start with what is no address
    return log


def refused(names: Callable[[], object]) -> None:
    """Raise ``Wrong`` when the services would refuse the names."""
    try:
        names()
    except SettingsError as error:
        raise Wrong(str(error)) from None


def nats_lag(url: str, namespace: str, stream: str, consumer: str, settings: Any) -> Lag:
    """A consumer on the server of ``url``, which a resource of ``namespace`` names. The operator's settings tell of its
    own server; another one's monitoring endpoint is at the usual port, and its streams in the default account."""
    own = url == settings.EVENTS_NATS_URL
    usual = f"{first_host(reachable(url, namespace, settings))}:{_MONITORING_PORT}"
    monitoring = settings.EVENTS_NATS_MONITORING if own else ""
    return Lag(monitoring or usual, settings.EVENTS_NATS_ACCOUNT if own else _ACCOUNT, stream, consumer)
