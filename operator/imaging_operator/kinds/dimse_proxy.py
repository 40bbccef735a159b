"""``DimseProxy``: one end of a pair that carries DIMSE over NATS."""

from collections.abc import Sequence
from typing import Any

from imaging_operator.builders.certificates import client_files, client_mounts
from imaging_operator.builders.config import config_map
from imaging_operator.builders.environment import Value, config_map_env
from imaging_operator.builders.names import host
from imaging_operator.builders.pod import DICOM_PORT, Container, Port
from imaging_operator.builders.service import service
from imaging_operator.builders.workload import Workload
from imaging_operator.kinds import dimse
from imaging_operator.kinds.common import Json, Kind, Reference, Wanted
from imaging_operator.kinds.references import certificates, service_config, token
from imaging_operator.kinds.shared import (
    arguments,
    checksum,
    deployment_scale,
    drain_seconds,
    environment,
    image_of,
    plain_objects,
    pod_options,
    require_token,
    service_config_env,
    workers_environment,
)
from imaging_operator.specs.dimse_proxy import DimseProxySpec

COMPONENT = "dimse-proxy"
_LONGEST_TITLE = 16
_TARGET = "target"

Resource = Wanted[DimseProxySpec]


def references(name: str, spec: DimseProxySpec) -> Sequence[Reference]:
    """Token and certificates for NATS."""
    return [
        *token(spec.nats_token_secret),
        *certificates("nats_tls", spec.nats_tls, "NATS"),
        *certificates("dimse_tls", spec.dimse_tls, "DIMSE"),
        *certificates("dimse_target_tls", spec.target_tls, "Target"),
        *service_config(spec),
        dimse.lists_reference(_lists(name)),
    ]


def build(wanted: Resource, settings: Any) -> Sequence[Json]:
    """ConfigMaps, Deployment and the Service of the DICOM port."""
    spec = wanted.spec
    require_token(wanted)
    nats = config_map(wanted, f"{wanted.name}-proxy-nats-config", COMPONENT, _nats_config(spec))
    lists = dimse.lists_object(wanted, _lists(wanted.name), COMPONENT)
    workload = _workload(wanted, settings, nats, checksum(wanted, dimse.in_use(nats, lists)))
    listener = service(wanted, workload, port=DICOM_PORT, port_name="tcp-proxy", publication=dimse.publication_of(spec))
    # Without a target nobody empties the queue of this end: the number of its messages says nothing about load.
    lag = dimse.relay_lag(spec, wanted.namespace, spec.channel, settings) if spec.has_target else None
    return [nats, lists, *plain_objects(wanted, settings, workload, [listener], lag=lag)]


def _nats_config(spec: DimseProxySpec) -> dict[str, str]:
    found = {**dimse.relay_config(spec), "DIMSE_NATS_SUBJECT_CHANNEL": spec.channel}
    # A longer title was accepted where nothing is delivered; no AE has one.
    if spec.application_entity_title and len(spec.application_entity_title) <= _LONGEST_TITLE:
        found["DIMSE_TARGET_AE"] = spec.application_entity_title
    if spec.has_target:
        found["DIMSE_TARGET_HOST"] = spec.target_dimse_host
        found["DIMSE_TARGET_PORT"] = str(spec.target_dimse_port)
    return found


def _target_tls(spec: DimseProxySpec) -> dict[str, Value]:
    if spec.target_tls is None:
        return {}
    names = ("DIMSE_TARGET_TLS_CA_FILE", "DIMSE_TARGET_TLS_CERT_FILE", "DIMSE_TARGET_TLS_KEY_FILE")
    return {
        "DIMSE_TARGET_TLS_ENABLED": "true",
        "DIMSE_TARGET_TLS_VERIFY": spec.target_tls.verify,
        **client_files(spec.target_tls, _TARGET, names),
    }


def _workload(wanted: Resource, settings: Any, nats: Json, config_checksum: str) -> Workload:
    spec, group = wanted.spec, wanted.spec.proxy
    image, ours = image_of(group.image, settings)
    values = {
        "DIMSE_DELIVERY_MODE": spec.delivery_mode,
        **dimse.listener_environment(spec),
        **dimse.relay_environment(spec),
        **_target_tls(spec),
    }
    own_title = {"DIMSE_AE": spec.own_application_entity_title} if spec.own_application_entity_title else {}
    chosen = {**own_title, **workers_environment(spec)}
    container = Container(
        name="proxy",
        image=image,
        arguments=arguments(COMPONENT, ours=ours),
        environment=environment(wanted, fixed=dimse.fixed_environment(), values=values, chosen=chosen),
        size=dimse.SIZE.of_workers(spec.workers),
        env_from=[config_map_env(nats["metadata"]["name"]), *service_config_env(spec)],
        mounts=[*dimse.mounts(spec, _lists(wanted.name)), *client_mounts(spec.target_tls, _TARGET)],
        port=Port("dicom", DICOM_PORT),
    )
    return Workload(
        name=workload_name(wanted.name),
        component=COMPONENT,
        containers=[container],
        options=pod_options(spec, group),
        checksum=config_checksum,
        scale=deployment_scale(group),
        drain_seconds=drain_seconds(wanted, dimse.DRAIN_SECONDS),
    )


def workload_name(name: str) -> str:
    """Name of Deployment and Service."""
    return f"{name}-dimse-proxy"


def _lists(name: str) -> str:
    return f"{name}-proxy-config"


def status(wanted: Resource, settings: Any, observed: Sequence[Json]) -> Json:
    """Where the proxy listens."""
    name = workload_name(wanted.name)
    return dimse.dimse_status(observed, name, host(name, wanted.namespace, settings))


def durable(wanted: Resource, settings: Any) -> Sequence[str]:
    """The queue of what this end receives."""
    return dimse.relay_streams(wanted.spec, wanted.spec.channel)


KIND: Kind[DimseProxySpec] = Kind(
    name="DimseProxy",
    plural="dimseproxies",
    spec=DimseProxySpec,
    references=references,
    build=build,
    status=status,
    durable=durable,
)
