"""``DicomwebIngestionService``: STOW-RS and WADO-RS, two workloads of one component, before a storage space."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imaging_operator.builders.bucket import bucket_environment, bucket_mounts, bucket_objects
from imaging_operator.builders.environment import Value, boolean, value_of
from imaging_operator.builders.knative import HEALTH_PORT as KNATIVE_HEALTH_PORT
from imaging_operator.builders.knative import knative_service, public_url, sink_binding
from imaging_operator.builders.names import host, url
from imaging_operator.builders.pod import HEALTH_PORT, HTTP_PORT, Container, Mount, Port, Size
from imaging_operator.builders.service import IngressOptions, ingress, service
from imaging_operator.builders.workload import Scale, Workload, service_account
from imaging_operator.errors import Wrong
from imaging_operator.kinds.common import Json, Kind, Reference, Wanted
from imaging_operator.kinds.references import (
    WEB_KIND,
    bucket,
    event_driven_ingestion,
    events_of_edi,
    service_config,
)
from imaging_operator.kinds.shared import (
    Edi,
    arguments,
    checksum,
    drain_seconds,
    edi_of,
    environment,
    fixed_ports,
    image_of,
    observed_object,
    plain_objects,
    pod_options,
    require_knative,
    service_config_env,
    service_scale,
    workers_environment,
)
from imaging_operator.specs.common import ServiceGroup
from imaging_operator.specs.dicomweb_ingestion_service import DicomwebIngestionServiceSpec

COMPONENT = "dicomweb-ingestion"
_SIZES = {
    "stow": Size(cpu="100m", memory="128Mi", memory_limit="512Mi"),
    "wado": Size(cpu="100m", memory="128Mi", memory_limit="1Gi", scratch="1Gi"),  # it decodes frames when asked to
}
_DRAIN_SECONDS = 30
_STREAMING_PATHS = ("/wado", "/WADO", "/HeaderStreaming")  # an Ingress tells letter cases apart, the viewers do not
_PATHS = {"/dicomweb": "wado", "/stow-rs": "stow", "/wado-rs": "wado"} | dict.fromkeys(_STREAMING_PATHS, "wado")

Resource = Wanted[DicomwebIngestionServiceSpec]


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the two workloads."""

    role: str
    group: ServiceGroup
    values: Mapping[str, Value]
    mounts: Sequence[Mount]


def references(name: str, spec: DicomwebIngestionServiceSpec) -> Sequence[Reference]:
    """Storage space and EDI; itself too, whose status holds the public address that Knative gave."""
    return [
        *bucket(spec),
        event_driven_ingestion(spec),
        *events_of_edi(),
        *service_config(spec),
        Reference("self", WEB_KIND, name, "", optional=True),
    ]


def build(wanted: Resource, settings: Any) -> Sequence[Json]:
    """The two workloads, and an Ingress when it is asked for."""
    edi = edi_of(wanted, settings)
    spec = wanted.spec
    shared = bucket_objects(wanted, spec, COMPONENT)
    if spec.allow_delete and edi.log is None:
        raise Wrong(
            f"spec.allowDelete: events of DicomEventDrivenIngestion {edi.name} go through a Knative broker, which does "
            "not say whether a deletion is recorded"
        )
    if _on_knative(wanted, edi):
        return [*shared, *_knative(wanted, settings, edi)]
    parts = [_stow(wanted, settings, edi, _external(wanted, settings)), _wado(wanted, settings, edi, _published(spec))]
    found = list(shared)
    for part in parts:
        workload = _workload(wanted, settings, part, knative=False)
        services = [service(wanted, workload, port=80, port_name="http")]
        found += plain_objects(wanted, settings, workload, services)
    if spec.ingress:
        backends = {path: workload_name(wanted.name, role) for path, role in _PATHS.items()}
        found.append(ingress(wanted, f"{wanted.name}-dicomweb", COMPONENT, _ingress_options(spec), backends))
    return found


def _on_knative(wanted: Resource, edi: Edi) -> bool:
    wish = wanted.spec.knative
    return edi.knative if wish is None else wish


def _knative(wanted: Resource, settings: Any, edi: Edi) -> list[Json]:
    require_knative(wanted)
    spec = wanted.spec
    published = _published(spec, knative=True)
    public = published or _reported(wanted)
    parts = [_wado(wanted, settings, edi, published)]
    # Instances that STOW announces carry the address at which they can be fetched: it waits until that is known.
    # And a revision made before its SinkBinding takes effect would end at once without K_SINK.
    if public and (edi.log or edi.broker_endpoint):
        parts.append(_stow(wanted, settings, edi, public))
    found: list[Json] = []
    for part in parts:
        workload = _workload(wanted, settings, part, knative=True)
        found.append(service_account(wanted, workload))
        if part.role == "stow" and edi.knative:
            binding = f"{workload.name}-sink-binding"
            found.append(sink_binding(wanted, binding, COMPONENT, subject=workload.name, broker_name=edi.broker))
        found.append(knative_service(wanted, workload, concurrency=part.group.concurrency, public=True))
    return found


def _stow(wanted: Resource, settings: Any, edi: Edi, external: str) -> _Part:
    internal = url(workload_name(wanted.name, "wado"), wanted.namespace, settings)
    values: dict[str, Value] = {
        "WADO_INTERNAL_ENDPOINT": f"{internal}/wado-rs",
        "WADO_EXTERNAL_ENDPOINT": f"{external}/wado-rs",
        "EVENT_SOURCE": host(workload_name(wanted.name, "stow"), wanted.namespace, settings),
        "K_SINK": edi.require_broker_endpoint(),
        **(edi.log.producer() if edi.log else {}),
    }
    return _Part("stow", wanted.spec.stow_service, values, edi.log.mounts() if edi.log else [])


def _wado(wanted: Resource, settings: Any, edi: Edi, published: str) -> _Part:
    values: dict[str, Value] = {"QUERY_ENDPOINT": edi.query_endpoint}
    mounts: Sequence[Mount] = []
    if wanted.spec.allow_delete and edi.log:
        # The part that reads deletes: at the URLs that searches give, and that an Ingress leads to it.
        source = host(workload_name(wanted.name, "wado"), wanted.namespace, settings)
        values |= {"DICOMWEB_DELETE": boolean(True), "EVENT_SOURCE": source, **edi.log.producer()}
        mounts = edi.log.mounts()
    # Without a public address the URLs in answers begin with the address that the request came to.
    if published:
        values["WADO_EXTERNAL_ENDPOINT"] = f"{published}/wado-rs"
    return _Part("wado", wanted.spec.wado_service, values, mounts)


def _workload(wanted: Resource, settings: Any, part: _Part, *, knative: bool) -> Workload:
    spec, group = wanted.spec, part.group
    image, ours = image_of(group.image, settings)
    values: dict[str, Value] = {"DRAIN_SECONDS": str(_DRAIN_SECONDS), **part.values}
    # Knative itself keeps to containerConcurrency.
    if group.concurrency and not knative:
        values["HTTP_CONCURRENCY"] = str(math.ceil(group.concurrency / spec.workers))
    provider = {"PROVIDER_NAME": spec.provider_name} if spec.provider_name else {}
    container = Container(
        name=part.role,
        image=image,
        arguments=arguments(COMPONENT, ours=ours),
        environment=environment(
            wanted,
            fixed={
                **fixed_ports(KNATIVE_HEALTH_PORT if knative else HEALTH_PORT),
                **bucket_environment(),
                "DICOMWEB_ROLE": part.role,
            },
            values=values,
            chosen={**provider, **workers_environment(spec)},
        ),
        size=_SIZES[part.role].of_workers(spec.workers),
        env_from=service_config_env(spec),
        mounts=[*bucket_mounts(wanted, spec), *part.mounts],
        port=Port("http", HTTP_PORT),
    )
    return Workload(
        name=workload_name(wanted.name, part.role),
        component=f"{COMPONENT}-{part.role}",
        containers=[container],
        options=pod_options(spec, group),
        checksum=checksum(wanted),
        scale=Scale(group.min_replicas, group.max_replicas) if knative else service_scale(group),
        drain_seconds=drain_seconds(wanted, _DRAIN_SECONDS),
    )


def workload_name(name: str, role: str) -> str:
    """Name of the Deployment or Knative Service, and of its Service."""
    return f"{name}-{role}"


def _published(spec: DicomwebIngestionServiceSpec, *, knative: bool = False) -> str:
    """The public base URL that the resource says; empty when it says none. Knative publishes its Services itself."""
    if spec.external_endpoint:
        return spec.external_endpoint.rstrip("/")
    return _ingress_options(spec).url if spec.ingress and not knative else ""


def _external(wanted: Resource, settings: Any) -> str:
    """Where others fetch: without anything public, inside the cluster."""
    return _published(wanted.spec) or url(workload_name(wanted.name, "wado"), wanted.namespace, settings)


def _reported(wanted: Resource) -> str:
    """The public address of WADO that an earlier pass saw."""
    return str(((wanted.found.get("self") or {}).get("status") or {}).get("wadoServiceExternalEndpoint") or "")


def _ingress_options(spec: DicomwebIngestionServiceSpec) -> IngressOptions:
    wish = spec.ingress
    if wish is None:
        return IngressOptions("")
    return IngressOptions(wish.host, wish.class_name, wish.tls_secret_name, dict(sorted(wish.annotations.items())))


def status(wanted: Resource, settings: Any, observed: Sequence[Json]) -> Json:
    """Where STOW-RS and WADO-RS are, inside the cluster and outside.

    WADO's last known address stays while its Knative Service has none, such as one just made anew: STOW, and the
    instances it announces, depend on it.
    """
    last = _reported(wanted) if _on_knative(wanted, edi_of(wanted, settings)) else ""
    found: Json = {}
    for role in ("stow", "wado"):
        name = workload_name(wanted.name, role)
        internal = url(name, wanted.namespace, settings)
        route = public_url(observed, name) or (last if role == "wado" else "")
        if not route and not observed_object(observed, "Service", name):
            continue
        found[f"{role}ServiceInternalEndpoint"] = internal
        found[f"{role}ServiceExternalEndpoint"] = _published(wanted.spec, knative=bool(route)) or route or internal
    return found


def durable(wanted: Resource, settings: Any) -> Sequence[str]:
    """The storage space with all that is in it."""
    config = wanted.found.get("bucket_config")
    for key, what in (("BUCKET_NAME", "bucket"), ("AZURE_CONTAINER_NAME", "container")):
        if name := value_of(key, config):
            return [f"{what} {name}"]
    return []


KIND: Kind[DicomwebIngestionServiceSpec] = Kind(
    name=WEB_KIND,
    plural="dicomwebingestionservices",
    spec=DicomwebIngestionServiceSpec,
    references=references,
    build=build,
    status=status,
    durable=durable,
)
