"""``DimseIngestionService``: a DIMSE AE in the cluster that writes to a storage space."""

from collections.abc import Mapping, Sequence
from typing import Any

from imaging_operator.builders.bucket import bucket_environment, bucket_mounts, bucket_objects
from imaging_operator.builders.config import config_map
from imaging_operator.builders.environment import Value, config_map_env
from imaging_operator.builders.names import host
from imaging_operator.builders.pod import DICOM_PORT, Container, Port
from imaging_operator.builders.service import service
from imaging_operator.builders.workload import Workload
from imaging_operator.errors import MissingReference
from imaging_operator.kinds import dimse
from imaging_operator.kinds.common import Json, Kind, Reference, Wanted
from imaging_operator.kinds.references import (
    WEB_KIND,
    bucket,
    certificates,
    event_driven_ingestion,
    events_of_edi,
    service_config,
    token,
)
from imaging_operator.kinds.shared import (
    Edi,
    arguments,
    checksum,
    deployment_scale,
    drain_seconds,
    edi_of,
    environment,
    image_of,
    plain_objects,
    pod_options,
    require_token,
    service_config_env,
    workers_environment,
)
from imaging_operator.specs.dimse_ingestion_service import DimseIngestionServiceSpec

COMPONENT = "dimse-ingestion"
_CHANNEL = "B"
_DEFAULT_PROVIDER = "default"

Resource = Wanted[DimseIngestionServiceSpec]


def references(name: str, spec: DimseIngestionServiceSpec) -> Sequence[Reference]:
    """Storage space, EDI, the WEB of the same storage space, and token and certificates for NATS."""
    return [
        *bucket(spec),
        event_driven_ingestion(spec),
        *events_of_edi(),
        Reference("web", WEB_KIND, "", _missing_web(spec), matches=_is_web_of(spec)),
        *token(spec.nats_token_secret),
        *certificates("nats_tls", spec.nats_tls, "NATS"),
        *certificates("dimse_tls", spec.dimse_tls, "DIMSE"),
        *service_config(spec),
        dimse.lists_reference(_lists(name)),
    ]


def _missing_web(spec: DimseIngestionServiceSpec) -> str:
    return f"Missing DicomwebIngestionService with provider name: {spec.provider_name}"


def _is_web_of(spec: DimseIngestionServiceSpec) -> Any:
    wished = (spec.dicom_event_driven_ingestion_name, spec.provider_name)

    def matches(web: Json) -> bool:
        found: Mapping[str, Any] = web.get("spec") or {}
        return (found.get("dicomEventDrivenIngestionName"), found.get("providerName") or "") == wished

    return matches


def build(wanted: Resource, settings: Any) -> Sequence[Json]:
    """ConfigMaps and Deployment, and a Service when associations may be opened to it."""
    spec = wanted.spec
    edi = edi_of(wanted, settings)
    require_token(wanted)
    nats = config_map(wanted, f"{wanted.name}-ingestion-nats-config", COMPONENT, _nats_config(spec))
    lists = dimse.lists_object(wanted, _lists(wanted.name), COMPONENT)
    workload = _workload(wanted, settings, edi, nats, checksum(wanted, dimse.in_use(nats, lists)))
    publication = dimse.publication_of(spec)
    listeners = (
        [service(wanted, workload, port=DICOM_PORT, port_name="dicom", publication=publication)] if spec.direct else []
    )
    lag = dimse.relay_lag(spec, wanted.namespace, _CHANNEL, settings)
    return [
        nats,
        lists,
        *bucket_objects(wanted, spec, COMPONENT),
        *plain_objects(wanted, settings, workload, listeners, lag=lag),
    ]


def _nats_config(spec: DimseIngestionServiceSpec) -> dict[str, str]:
    title = {"DIMSE_AE": spec.application_entity_title} if spec.application_entity_title else {}
    if spec.direct and not spec.nats_url:
        return {**title, "DIMSE_NATS_DISABLED": "true"}
    return {**title, **dimse.relay_config(spec)}


def _workload(wanted: Resource, settings: Any, edi: Edi, nats: Json, config_checksum: str) -> Workload:
    spec, group = wanted.spec, wanted.spec.dimse_service
    image, ours = image_of(group.image, settings)
    values: dict[str, Value] = {
        **dimse.listener_environment(spec),
        **dimse.relay_environment(spec),
        **_archive(wanted, settings, edi),
        **(edi.log.producer() if edi.log else {}),
    }
    container = Container(
        name="ingestion",
        image=image,
        arguments=arguments(COMPONENT, ours=ours),
        environment=environment(
            wanted,
            fixed={**dimse.fixed_environment(), **bucket_environment()},
            values=values,
            chosen={"PROVIDER_NAME": spec.provider_name or _DEFAULT_PROVIDER, **workers_environment(spec)},
        ),
        size=dimse.SIZE.of_workers(spec.workers),
        env_from=[config_map_env(nats["metadata"]["name"]), *service_config_env(spec)],
        mounts=[
            *bucket_mounts(wanted, spec),
            *dimse.mounts(spec, _lists(wanted.name)),
            *(edi.log.mounts() if edi.log else []),
        ],
        # Without a Service nobody is told of the port, and the NetworkPolicy closes it.
        port=Port("dicom", DICOM_PORT) if spec.direct else None,
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


def _archive(wanted: Resource, settings: Any, edi: Edi) -> dict[str, Value]:
    """Where events go, and where queries and other readers find what was stored."""
    status: Mapping[str, Any] = wanted.found["web"].get("status") or {}
    internal, external = (status.get(f"wadoService{side}Endpoint") for side in ("Internal", "External"))
    if not internal or not external:
        raise MissingReference(_missing_web(wanted.spec))
    return {
        "EVENT_SOURCE": host(workload_name(wanted.name), wanted.namespace, settings),
        "K_SINK": edi.require_broker_endpoint(),
        "QUERY_ENDPOINT": edi.query_endpoint,
        "WADO_EXTERNAL_ENDPOINT": f"{external}/wado-rs",
        "WADO_INTERNAL_ENDPOINT": f"{internal}/wado-rs",
    }


def workload_name(name: str) -> str:
    """Name of Deployment and Service."""
    return f"{name}-dimse"


def _lists(name: str) -> str:
    return f"{name}-dimse-config"


def status(wanted: Resource, settings: Any, observed: Sequence[Json]) -> Json:
    """Where the listener is, when it is published."""
    name = workload_name(wanted.name)
    return dimse.dimse_status(observed, name, host(name, wanted.namespace, settings))


def durable(wanted: Resource, settings: Any) -> Sequence[str]:
    """The queue that it empties; the storage space belongs to the WEB."""
    return dimse.relay_streams(wanted.spec, _CHANNEL)


KIND: Kind[DimseIngestionServiceSpec] = Kind(
    name="DimseIngestionService",
    plural="dimseingestionservices",
    spec=DimseIngestionServiceSpec,
    references=references,
    build=build,
    status=status,
    durable=durable,
)
