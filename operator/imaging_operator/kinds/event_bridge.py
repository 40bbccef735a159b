"""``DicomEventBridge``: events between clusters, a hub and its edges."""

from collections.abc import Sequence
from typing import Any

from imaging_operator.builders.certificates import client_files, client_mounts
from imaging_operator.builders.config import config_map
from imaging_operator.builders.environment import SecretKey, Value, boolean, config_map_env
from imaging_operator.builders.events import TOKEN_KEY, nats_lag, refused
from imaging_operator.builders.knative import service_reference, trigger
from imaging_operator.builders.names import url
from imaging_operator.builders.pod import HTTP_PORT, Container, Mount, Port, Size, config_map_mount
from imaging_operator.builders.scaling import Lag
from imaging_operator.builders.service import service
from imaging_operator.builders.workload import Workload
from imaging_operator.errors import Wrong
from imaging_operator.kinds.common import STREAM, Json, Kind, Reference, Wanted
from imaging_operator.kinds.references import certificates, event_driven_ingestion, events_of_edi, service_config, token
from imaging_operator.kinds.shared import (
    Edi,
    arguments,
    checksum,
    deployment_scale,
    drain_seconds,
    edi_of,
    environment,
    fixed_ports,
    image_of,
    observed_object,
    plain_objects,
    pod_options,
    require_knative,
    require_token,
    scaled_status,
    service_config_env,
)
from imaging_operator.specs.event_bridge import EventBridgeSpec
from imaging_services.domain.events.subjects import MailboxSubjects
from imaging_services.domain.nats_names import token as nats_token

COMPONENT = "event-bridge"
LOCATIONS = "EDGE_LOCATION_CONFIG"
_LOCATIONS_PATH = "/etc/config"
_SIZE = Size(cpu="50m", memory="128Mi", scratch="1Gi")
_DRAIN_SECONDS = 30
_DEFAULT_ROOT = "events"
_HUB = "hub"
_USE = "nats"

Resource = Wanted[EventBridgeSpec]


def references(name: str, spec: EventBridgeSpec) -> Sequence[Reference]:
    """The EDI, and token and certificates of both NATS servers. The hub's locations are read anew by the bridge
    itself: their change rolls nothing."""
    return [
        event_driven_ingestion(spec),
        *events_of_edi(),
        *token(spec.nats_token_secret),
        *certificates("nats_tls", spec.nats_tls, "NATS"),
        *service_config(spec),
    ]


def build(wanted: Resource, settings: Any) -> Sequence[Json]:
    """ConfigMaps, Deployment, Service; under Knative the Trigger that brings it events."""
    spec = wanted.spec
    if not spec.nats_url:
        raise Wrong("spec.natsUrl is not set: the bridge needs the NATS server that hub and edges share")
    if spec.role != _HUB and not spec.edge_mailbox:
        raise Wrong("spec.edgeMailbox is not set: an edge needs the id of its mailbox")
    require_token(wanted)
    edi = edi_of(wanted, settings)
    if edi.knative:
        require_knative(wanted)
    nats = config_map(wanted, f"{wanted.name}-bridge-nats-config", COMPONENT, _nats_config(spec))
    workload = _workload(wanted, settings, edi, nats)
    services = [service(wanted, workload, port=80, port_name="http-bridge")]
    found = [nats]
    if spec.role == _HUB:
        # Empty: an example would be an edge, and collect events that nobody fetches.
        found.append(config_map(wanted, _locations(wanted.name), COMPONENT, {LOCATIONS: "{}\n"}, create_only=True))
    found += plain_objects(wanted, settings, workload, services, private=not edi.knative, lag=_lag(wanted, settings))
    if edi.knative:
        found.append(
            trigger(
                wanted,
                f"{wanted.name}-bridge-trigger",
                COMPONENT,
                broker_name=edi.broker,
                event_type="",
                subscriber=service_reference(workload.name),
            )
        )
    return found


def _nats_config(spec: EventBridgeSpec) -> dict[str, str]:
    found = {"NATS_URL": spec.nats_url, "NATS_TLS_ENABLED": boolean(spec.nats_secure)}
    if spec.nats_subject_root:
        found["NATS_SUBJECT_ROOT"] = spec.nats_subject_root
    refused(lambda: _subjects(spec).edge(spec.edge_mailbox) if spec.edge_mailbox else _subjects(spec).hub)
    return found


def _subjects(spec: EventBridgeSpec) -> MailboxSubjects:
    return MailboxSubjects(spec.nats_subject_root or _DEFAULT_ROOT)


def _lag(wanted: Resource, settings: Any) -> Lag:
    spec = wanted.spec
    mailbox = _HUB if spec.role == _HUB else nats_token(spec.edge_mailbox)
    return nats_lag(spec.nats_url, wanted.namespace, _subjects(spec).stream, mailbox, settings)


def _workload(wanted: Resource, settings: Any, edi: Edi, nats: Json) -> Workload:
    spec, group = wanted.spec, wanted.spec.event_bridge
    image, ours = image_of(group.image, settings)
    container = Container(
        name="proxy",
        image=image,
        arguments=arguments(COMPONENT, ours=ours),
        environment=environment(wanted, fixed=fixed_ports(), values=_values(wanted, edi)),
        size=_SIZE,
        env_from=[config_map_env(nats["metadata"]["name"]), *service_config_env(spec)],
        mounts=_mounts(wanted, edi),
        port=Port("http", HTTP_PORT),
    )
    return Workload(
        name=workload_name(wanted.name),
        component=COMPONENT,
        containers=[container],
        options=pod_options(spec, group),
        checksum=checksum(wanted, {"nats_config": nats}),
        scale=deployment_scale(group),
        drain_seconds=drain_seconds(wanted, _DRAIN_SECONDS),
    )


def _values(wanted: Resource, edi: Edi) -> dict[str, Value]:
    spec = wanted.spec
    values: dict[str, Value] = {
        "BRIDGE_ROLE": spec.role,
        "DRAIN_SECONDS": str(_DRAIN_SECONDS),
        # Said, because a Deployment that is taken over may have it as true.
        "INSECURE_SKIP_VERIFY": boolean(False),
        "K_SINK": edi.require_broker_endpoint(),
        **(edi.log.consumer() | {"EVENTS_CONSUMER": workload_name(wanted.name)} if edi.log else {}),
        **client_files(spec.nats_tls, _USE, ("NATS_TLS_CA_FILE", "NATS_TLS_CERT_FILE", "NATS_TLS_KEY_FILE")),
    }
    if spec.role == _HUB:
        values[LOCATIONS] = f"{_LOCATIONS_PATH}/{LOCATIONS}"
    else:
        values["EDGE_MAILBOX_ID"] = spec.edge_mailbox
    # Raised by whoever asks for more; the mailboxes are the hub's and all edges'.
    if spec.stream_replicas > 1:
        values["NATS_STREAM_REPLICAS"] = str(spec.stream_replicas)
    if spec.jet_stream_domain:
        values["NATS_DOMAIN"] = spec.jet_stream_domain
    if spec.nats_token_secret:
        values["NATS_AUTH_TOKEN"] = SecretKey(spec.nats_token_secret, TOKEN_KEY)
    return values


def _mounts(wanted: Resource, edi: Edi) -> list[Mount]:
    spec = wanted.spec
    found = [*client_mounts(spec.nats_tls, _USE), *(edi.log.mounts() if edi.log else [])]
    if spec.role == _HUB:
        found.append(config_map_mount("edge-location-config", _LOCATIONS_PATH, _locations(wanted.name)))
    return found


def workload_name(name: str) -> str:
    """Name of Deployment and Service."""
    return f"{name}-event-bridge"


def _locations(name: str) -> str:
    return f"{name}-edge-location-config"


def status(wanted: Resource, settings: Any, observed: Sequence[Json]) -> Json:
    """Where events for the other side are posted."""
    name = workload_name(wanted.name)
    found = scaled_status(observed, name)
    if observed_object(observed, "Service", name):
        found["bridgeEndpoint"] = url(name, wanted.namespace, settings)
    return found


def durable(wanted: Resource, settings: Any) -> Sequence[str]:
    """The mailboxes, which hub and edges share."""
    subjects = _subjects(wanted.spec)
    return [f"{STREAM}{subjects.stream}", f"{STREAM}{subjects.dead_letter_stream}"]


KIND: Kind[EventBridgeSpec] = Kind(
    name="DicomEventBridge",
    plural="dicomeventbridges",
    spec=EventBridgeSpec,
    references=references,
    build=build,
    status=status,
    durable=durable,
    makes_streams_of_others=True,
)
