"""What the two kinds with a DICOM listener share: their connection to the relay, and their capability lists."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from imaging_operator.builders.certificates import client_files, client_mounts
from imaging_operator.builders.config import capability_lists, config_map
from imaging_operator.builders.environment import SecretKey, Value, boolean
from imaging_operator.builders.events import TOKEN_KEY, nats_lag, refused
from imaging_operator.builders.pod import DICOM_PORT, HEALTH_PORT, Mount, Size, config_map_mount
from imaging_operator.builders.scaling import Lag
from imaging_operator.builders.servers import first_host
from imaging_operator.builders.service import Publication
from imaging_operator.errors import Wrong
from imaging_operator.kinds.common import STREAM, Json, Reference, Wanted
from imaging_operator.kinds.shared import observed_object, scaled_status
from imaging_operator.specs.connections import ClientTls, Exposure, ListenerTls
from imaging_services.domain.relay.subjects import RelaySubjects

CONFIG_PATH = "/etc/dimse/config"
SIZE = Size(cpu="100m", memory="128Mi")
DRAIN_SECONDS = 60
"""An association under way gets this long to end; a sender that is cut off in the middle sends its study again."""
_DEFAULT_ROOT = "DIMSE"
_USE = "nats"
_LISTENER = "dimse"
_LISTS_KEY = "capability_lists"


class RelaySpec(Protocol):
    """The fields of both specs."""

    @property
    def nats_url(self) -> str: ...
    @property
    def nats_secure(self) -> bool: ...
    @property
    def nats_subject_root(self) -> str: ...
    @property
    def nats_token_secret(self) -> str: ...
    @property
    def nats_tls(self) -> ClientTls | None: ...
    @property
    def dimse_tls(self) -> ListenerTls | None: ...
    @property
    def jet_stream_send_domain(self) -> str: ...
    @property
    def jet_stream_receive_domain(self) -> str: ...
    @property
    def stream_replicas(self) -> int: ...
    @property
    def allowed_calling_ae_titles(self) -> tuple[str, ...]: ...
    @property
    def accept_unknown_sop_classes(self) -> bool: ...
    @property
    def service(self) -> Exposure | None: ...
    @property
    def workers(self) -> int: ...


def lists_reference(name: str) -> Reference:
    """The ConfigMap that the user may edit; the operator makes it."""
    return Reference(_LISTS_KEY, "ConfigMap", name, "", optional=True)


def lists_object(wanted: Wanted[Any], name: str, component: str) -> Json:
    """Its content at the beginning."""
    return config_map(wanted, name, component, capability_lists(), create_only=True)


def in_use(nats: Json, lists: Json) -> dict[str, Json]:
    """For the checksum: the lists about to be made count as those that are there do, or every new resource would roll
    its pods once."""
    return {"nats_config": nats, _LISTS_KEY: lists}


def relay_config(spec: RelaySpec) -> dict[str, str]:
    """Keys of the NATS ConfigMap: the relay's server and subjects. Raises ``Wrong`` without a server, or when
    its address cannot be read."""
    if not spec.nats_url:
        raise Wrong("spec.natsUrl is not set: the relay needs a NATS server with JetStream")
    first_host(spec.nats_url)
    found = {"DIMSE_NATS_URL": spec.nats_url, "DIMSE_NATS_TLS_ENABLED": boolean(spec.nats_secure)}
    if spec.nats_subject_root:
        found["DIMSE_NATS_SUBJECT_ROOT"] = spec.nats_subject_root
        refused(lambda: RelaySubjects(spec.nats_subject_root, "A"))
    return found


def relay_environment(spec: RelaySpec) -> dict[str, Value]:
    """What else the relay is told."""
    domains = {
        "DIMSE_NATS_SEND_DOMAIN": spec.jet_stream_send_domain,
        "DIMSE_NATS_RECEIVE_DOMAIN": spec.jet_stream_receive_domain,
    }
    found: dict[str, Value] = {"DIMSE_STREAM_REPLICAS": str(spec.stream_replicas)}
    found |= {name: domain for name, domain in domains.items() if domain}
    names = ("DIMSE_NATS_TLS_CA_FILE", "DIMSE_NATS_TLS_CERT_FILE", "DIMSE_NATS_TLS_KEY_FILE")
    found |= client_files(spec.nats_tls, _USE, names)
    if spec.nats_token_secret:
        found["DIMSE_NATS_AUTH_TOKEN"] = SecretKey(spec.nats_token_secret, TOKEN_KEY)
    return found


def listener_environment(spec: RelaySpec) -> dict[str, Value]:
    """Who may open an association, and for what."""
    found: dict[str, Value] = {"DRAIN_SECONDS": str(DRAIN_SECONDS)}
    if spec.allowed_calling_ae_titles:
        found["DIMSE_ALLOWED_CALLING_AE"] = ",".join(spec.allowed_calling_ae_titles)
    if spec.accept_unknown_sop_classes:
        found["DIMSE_ACCEPT_UNKNOWN_SOP_CLASSES"] = "true"
    if spec.dimse_tls:
        found |= {"DIMSE_TLS_ENABLED": "true", "DIMSE_TLS_CLIENT_AUTH": spec.dimse_tls.client_auth}
        names = ("DIMSE_TLS_CA_FILE", "DIMSE_TLS_CERT_FILE", "DIMSE_TLS_KEY_FILE")
        found |= client_files(spec.dimse_tls, _LISTENER, names)
    return found


def fixed_environment() -> dict[str, str]:
    """What agrees with ports and mounts."""
    return {"DIMSE_PORT": str(DICOM_PORT), "DIMSE_CONFIG_PATH": CONFIG_PATH, "HEALTH_PORT": str(HEALTH_PORT)}


def mounts(spec: RelaySpec, lists: str) -> list[Mount]:
    """Capability lists, and certificates for NATS and of the listener."""
    return [
        config_map_mount("dimse-config-volume", CONFIG_PATH, lists),
        *client_mounts(spec.nats_tls, _USE),
        *client_mounts(spec.dimse_tls, _LISTENER),
    ]


def relay_lag(spec: RelaySpec, namespace: str, channel: str, settings: Any) -> Lag | None:
    """The work queue that the pods empty; None for who does not say a server."""
    if not spec.nats_url:
        return None
    subjects = RelaySubjects(spec.nats_subject_root or _DEFAULT_ROOT, channel)
    return nats_lag(spec.nats_url, namespace, subjects.stream, subjects.worker, settings)


def relay_streams(spec: RelaySpec, channel: str) -> list[str]:
    """What outlives the resource, in words: the queues of what this end receives."""
    if not spec.nats_url:
        return []
    subjects = RelaySubjects(spec.nats_subject_root or _DEFAULT_ROOT, channel)
    queues = (subjects.stream, subjects.urgent_stream, subjects.domains_stream)
    names = (*queues, subjects.dead_letter_stream, f"OBJ_{subjects.bucket}")
    return [f"{STREAM}{name}" for name in names]


def dimse_status(observed: Sequence[Json], name: str, address: str) -> Json:
    """``dimseEndpoint``, and what the scale subresource needs."""
    found = scaled_status(observed, name)
    listener = observed_object(observed, "Service", name)
    if listener:
        found["dimseEndpoint"] = f"{_balancer(listener) or address}:{DICOM_PORT}"
    return found


def _balancer(service: Mapping[str, Any]) -> str:
    """Address of a load balancer, once it has one."""
    entries = (((service.get("status") or {}).get("loadBalancer") or {}).get("ingress")) or [{}]
    return str(entries[0].get("hostname") or entries[0].get("ip") or "")


def publication_of(spec: RelaySpec) -> Publication:
    """How the DICOM port is published."""
    wish = spec.service
    if wish is None:
        return Publication()
    return Publication(
        wish.type, wish.node_port, wish.load_balancer_source_ranges, dict(sorted(wish.annotations.items()))
    )
