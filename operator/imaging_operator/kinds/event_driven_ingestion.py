"""``DicomEventDrivenIngestion``: event processor, and the broker in front of it."""

from collections.abc import Sequence
from typing import Any

from imaging_operator.builders.certificates import client_files, client_mounts
from imaging_operator.builders.environment import Value, config_map_env, secret_env, value_of
from imaging_operator.builders.events import event_log
from imaging_operator.builders.knative import HEALTH_PORT as KNATIVE_HEALTH_PORT
from imaging_operator.builders.knative import (
    address,
    broker,
    knative_reference,
    knative_service,
    sink_binding,
    trigger,
)
from imaging_operator.builders.names import host, url
from imaging_operator.builders.pod import HEALTH_PORT, HTTP_PORT, Container, Mount, Port, Size
from imaging_operator.builders.service import service
from imaging_operator.builders.workload import Scale, Workload, service_account
from imaging_operator.errors import Wrong
from imaging_operator.kinds.common import STREAM, Json, Kind, Reference, Wanted
from imaging_operator.kinds.references import EDI_KIND, certificates, service_config, token
from imaging_operator.kinds.shared import (
    arguments,
    checksum,
    drain_seconds,
    environment,
    fixed_ports,
    image_of,
    knative_wished,
    observed_object,
    plain_objects,
    pod_options,
    require_knative,
    require_token,
    service_config_env,
    service_scale,
)
from imaging_operator.specs.event_driven_ingestion import EventDrivenIngestionSpec

COMPONENT = "event-driven-ingestion"
_SIZE = Size(cpu="100m", memory="128Mi", scratch="1Gi")
_DRAIN_SECONDS = 30
_QUIET_SECONDS = 30
"""What the event processor waits when nothing is said."""
_ANNOUNCING_SECONDS = 30
_LONGEST_RETENTION = 3600
_DATABASE = "database"
_OBJECTS = ("database_config", "database_secret")
"""References that are in the environment."""
_FILES = ("DB_SSLROOTCERT", "PGSSLCERT", "PGSSLKEY")

Resource = Wanted[EventDrivenIngestionSpec]


def references(name: str, spec: EventDrivenIngestionSpec) -> Sequence[Reference]:
    """Database settings, and the token and certificates of the event log; itself too, whose status holds the address
    that Knative gave the Broker."""
    return [
        Reference("database_secret", "Secret", spec.database_secret_name, "Missing Database Secret"),
        Reference("database_config", "ConfigMap", spec.database_config_name, "Missing Database Config"),
        *certificates("database_tls", spec.database_tls, "Database"),
        *token(spec.nats_token_secret),
        *certificates("nats_tls", spec.nats_tls, "NATS"),
        *service_config(spec),
        Reference("self", EDI_KIND, name, "", optional=True),
    ]


def build(wanted: Resource, settings: Any) -> Sequence[Json]:
    """The event processor with its two Services, or with Broker, Trigger and SinkBinding."""
    if knative_wished(wanted.spec.knative, settings):
        return _knative(wanted, settings)
    require_token(wanted)
    workload = _workload(wanted, settings, knative=False)
    services = [
        service(wanted, workload, port=80, port_name="http"),
        service(wanted, workload, port=80, port_name="http", name=broker_name(wanted.name)),
    ]
    # The query API answers with patients' data to whoever asks: only the namespace may.
    return plain_objects(wanted, settings, workload, services, private=True)


def _knative(wanted: Resource, settings: Any) -> list[Json]:
    require_knative(wanted)
    tls = wanted.spec.database_tls
    if tls and tls.secret_name:
        raise Wrong("spec.databaseTls.secretName: Knative cannot mount the key as libpq wants it; set knative: false")
    sink = _reported(wanted)
    workload = _workload(wanted, settings, knative=True, sink=sink)
    name, broker_ = workload.name, broker_name(wanted.name)
    found = [
        service_account(wanted, workload),
        broker(wanted, broker_, COMPONENT),
        sink_binding(wanted, f"{name}-sink-binding", COMPONENT, subject=name, broker_name=broker_),
    ]
    # A revision that is made before its SinkBinding takes effect would have no K_SINK and end at once, again and again:
    # it is told the address too, and waits until that is known.
    if sink:
        concurrency, retention = wanted.spec.event_processor.concurrency, _retention(wanted.spec)
        found.append(knative_service(wanted, workload, concurrency=concurrency, retention_seconds=retention))
    found.append(
        trigger(
            wanted,
            f"{wanted.name}-image-stored",
            COMPONENT,
            broker_name=broker_,
            event_type="ImageStoredEvent",
            subscriber=knative_reference(name),
        )
    )
    return found


def _retention(spec: EventDrivenIngestionSpec) -> int:
    """How long the last pod stays after the last event, so that it announces the revisions that wait for their quiet
    time; Knative takes an hour at most, beyond which a pod always runs."""
    seconds = (spec.quiet_seconds or _QUIET_SECONDS) + _ANNOUNCING_SECONDS
    return seconds if seconds <= _LONGEST_RETENTION else 0


def _reported(wanted: Resource) -> str:
    """The Broker's address that an earlier pass saw."""
    return str(((wanted.found.get("self") or {}).get("status") or {}).get("brokerEndpoint") or "")


def _workload(wanted: Resource, settings: Any, *, knative: bool, sink: str = "") -> Workload:
    spec, group = wanted.spec, wanted.spec.event_processor
    image, ours = image_of(group.image, settings)
    name = processor_name(wanted.name)
    log = None if knative else event_log(wanted.namespace, wanted.name, spec, settings)
    values: dict[str, Value] = {
        "DRAIN_SECONDS": str(_DRAIN_SECONDS),
        "EVENT_SOURCE": host(name, wanted.namespace, settings),
        **(log.consumer() if log else {}),
        **({"K_SINK": sink} if sink else {}),
    }
    # Knative itself keeps to containerConcurrency.
    if group.concurrency and not knative:
        values["HTTP_CONCURRENCY"] = str(group.concurrency)
    container = Container(
        name="event-processor",
        image=image,
        arguments=arguments(COMPONENT, ours=ours),
        environment=environment(
            wanted,
            fixed=fixed_ports(KNATIVE_HEALTH_PORT if knative else HEALTH_PORT),
            values=values,
            chosen=_chosen(spec),
            objects=_OBJECTS,
        ),
        size=_SIZE,
        env_from=[
            config_map_env(spec.database_config_name),
            secret_env(spec.database_secret_name),
            *service_config_env(spec),
        ],
        mounts=[*_database_mounts(spec), *(log.mounts() if log else [])],
        port=Port("http", HTTP_PORT),
    )
    return Workload(
        name=name,
        component=COMPONENT,
        containers=[container],
        options=pod_options(spec, group),
        checksum=checksum(wanted),
        scale=_knative_scale(spec) if knative else service_scale(group),
        drain_seconds=drain_seconds(wanted, _DRAIN_SECONDS, _OBJECTS),
    )


def _knative_scale(spec: EventDrivenIngestionSpec) -> Scale:
    group = spec.event_processor
    if _retention(spec):
        return Scale(group.min_replicas, group.max_replicas)
    minimum = max(1, group.min_replicas)
    return Scale(minimum, max(minimum, group.max_replicas) if group.max_replicas else 0)


def _chosen(spec: EventDrivenIngestionSpec) -> dict[str, Value]:
    chosen: dict[str, Value] = {}
    if spec.quiet_seconds is not None:
        chosen["IMAGING_INGESTION_STUDY_AGGREGATION_TIMEOUTSECONDS"] = str(spec.quiet_seconds)
    tls = spec.database_tls
    if tls:
        chosen["DB_SSLMODE"] = tls.mode
    if tls and tls.mode != "disable":
        chosen |= client_files(tls, _DATABASE, _FILES)
    return chosen


def _database_mounts(spec: EventDrivenIngestionSpec) -> list[Mount]:
    return client_mounts(spec.database_tls, _DATABASE)


def processor_name(name: str) -> str:
    """Name of the event processor's Deployment and Service."""
    return f"{name}-event-processor"


def broker_name(name: str) -> str:
    """Name of the Broker, or of the Service that stands for it."""
    return f"{name}-broker"


def status(wanted: Resource, settings: Any, observed: Sequence[Json]) -> Json:
    """Where events are posted, and where the event processor is."""
    processor, broker_ = processor_name(wanted.name), broker_name(wanted.name)
    if knative_wished(wanted.spec.knative, settings):
        found = {
            # A Broker that is not ready for a moment must not take the event processor with it.
            "brokerEndpoint": address(observed, "Broker", broker_) or _reported(wanted),
            "eventProcessorEndpoint": address(observed, "Service", processor),
        }
        return {key: value for key, value in found.items() if value}
    if not observed_object(observed, "Service", broker_):
        return {}
    return {
        "brokerEndpoint": url(broker_, wanted.namespace, settings),
        "eventProcessorEndpoint": url(processor, wanted.namespace, settings),
        "eventStream": event_log(wanted.namespace, wanted.name, wanted.spec, settings).stream,
    }


def durable(wanted: Resource, settings: Any) -> Sequence[str]:
    """The manifest, and the event log."""
    database = value_of("DB_NAME", wanted.found.get("database_config"))
    kept = [f"manifest database {database}"] if database else []
    if knative_wished(wanted.spec.knative, settings):
        return kept
    try:
        subjects = event_log(wanted.namespace, wanted.name, wanted.spec, settings).subjects
    except Wrong:
        return kept  # without a NATS server there never was a log
    return [*kept, f"{STREAM}{subjects.event_stream}", f"{STREAM}{subjects.dead_letter_stream}"]


KIND: Kind[EventDrivenIngestionSpec] = Kind(
    name=EDI_KIND,
    plural="dicomeventdriveningestions",
    spec=EventDrivenIngestionSpec,
    references=references,
    build=build,
    status=status,
    durable=durable,
)
