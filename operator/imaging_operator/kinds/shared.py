"""What the kinds share when they build: modes, images, pod options, environments, and a workload's objects."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imaging_operator.builders.checksum import config_checksum
from imaging_operator.builders.environment import Environment, Value, config_map_env, keys_of, value_of
from imaging_operator.builders.events import TOKEN_KEY, EventLog, event_log
from imaging_operator.builders.names import url
from imaging_operator.builders.network import network_policy
from imaging_operator.builders.pod import HEALTH_PORT, HTTP_PORT, PodOptions
from imaging_operator.builders.scaling import Lag, autoscaling, disruption_budget
from imaging_operator.builders.workload import Scale, Workload, deployment, selector, service_account
from imaging_operator.errors import MissingReference, NotYet
from imaging_operator.kinds.common import Json, Wanted
from imaging_operator.specs.common import DeploymentGroup, ServiceGroup, Spec, WorkersField
from imaging_operator.specs.common import Workload as WorkloadFields
from imaging_operator.specs.event_driven_ingestion import EventDrivenIngestionSpec

_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - a pod's network is its own
_DUMP: Any = {"by_alias": True, "exclude_none": True}
_READ_AGAIN = ("dimse_tls", "dimse_target_tls")


@dataclass(frozen=True, slots=True)
class Edi:
    """The EDI that a resource belongs to, as far as others need it."""

    name: str
    knative: bool
    broker_endpoint: str
    """Where CloudEvents are posted; empty while Knative has not said it."""
    query_endpoint: str
    log: EventLog | None
    """None under Knative."""

    @property
    def broker(self) -> str:
        """Name of the Broker, or of the Service that stands for it."""
        return f"{self.name}-broker"

    def require_broker_endpoint(self) -> str:
        """Raises ``MissingReference`` while it is not known."""
        if not self.broker_endpoint:
            raise MissingReference(f"DicomEventDrivenIngestion {self.name} has no broker endpoint yet")
        return self.broker_endpoint


def edi_of(wanted: Wanted[Any], settings: Any) -> Edi:
    """The EDI in ``found``. Raises ``Wrong`` when its events have no NATS server."""
    document = wanted.found["edi"]
    name, spec = document["metadata"]["name"], EventDrivenIngestionSpec.parse(document.get("spec"))
    knative = knative_wished(spec.knative, settings)
    if not knative:
        require_token(wanted, "events_token")
    reported = str((document.get("status") or {}).get("brokerEndpoint") or "")
    return Edi(
        name=name,
        knative=knative,
        broker_endpoint=reported if knative else url(f"{name}-broker", wanted.namespace, settings),
        query_endpoint=f"{url(f'{name}-event-processor', wanted.namespace, settings)}/query",
        log=None if knative else event_log(wanted.namespace, name, spec, settings),
    )


def require_token(wanted: Wanted[Any], key: str = "token") -> None:
    """Raise ``MissingReference`` when the Secret found at ``key`` does not hold a token: no pod could start."""
    secret = wanted.found.get(key)
    if secret is not None and TOKEN_KEY not in (secret.get("data") or {}):
        raise MissingReference(f"Secret {secret['metadata']['name']} has no key {TOKEN_KEY}")


def knative_wished(wish: bool | None, settings: Any) -> bool:
    """What the resource says, else the operator."""
    return bool(settings.KNATIVE) if wish is None else wish


def require_knative(wanted: Wanted[Any]) -> None:
    """Raise ``NotYet`` when Knative was asked for and is not there."""
    if not (wanted.features.knative_serving and wanted.features.knative_eventing):
        raise NotYet("Knative serving or eventing not installed in cluster")


def image_of(wish: str, settings: Any) -> tuple[str, bool]:
    """The image, and whether it is one of ours, which is told what to run. A mirror or another version of the
    operator's image is; anything else has an entry point of its own."""
    return (wish, _repository(wish) == _repository(settings.IMAGE)) if wish else (settings.IMAGE, True)


def _repository(image: str) -> str:
    """``imaging-ingestion`` of ``registry:5000/team/imaging-ingestion:0.1.0@sha256:…``."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def of_this_version(wish: str, settings: Any) -> bool:
    """Whether ours runs in the operator's version: in a mirror of its image, or beside an image that is not ours."""
    image, ours = image_of(wish, settings)
    (tag, digest), (own_tag, own_digest) = _version(image), _version(settings.IMAGE)
    return not ours or (tag == own_tag if tag and own_tag else digest == own_digest)


def _version(image: str) -> tuple[str, str]:
    """Tag and digest; without either it is the tag ``latest``."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or ("" if digest else "latest"), digest


def arguments(component: str, *, ours: bool) -> list[str]:
    """What the image is told to run."""
    return ["run", component] if ours else []


def pod_options(spec: Spec, group: WorkloadFields) -> PodOptions:
    """What the resource says about the pods of one workload."""
    wished = spec.resources_of(group)
    return PodOptions(
        pull_policy=spec.image_pull_policy,
        pull_secrets=[each.name for each in spec.image_pull_secrets if each.name],
        resources={
            part: {name: str(amount) for name, amount in sorted(amounts.items())}
            for part, amounts in (("requests", wished.requests), ("limits", wished.limits))
        },
        node_selector=dict(sorted(spec.node_selector.items())),
        tolerations=[each.model_dump(**_DUMP) for each in spec.tolerations],
        affinity=spec.affinity or {},
        pod_annotations=dict(sorted(spec.pod_annotations.items())),
        service_account_annotations=dict(sorted(spec.service_account_annotations.items())),
    )


def service_scale(group: ServiceGroup) -> Scale:
    """Replicas without Knative: at least one."""
    minimum = max(1, group.min_replicas)
    return Scale(minimum, max(minimum, group.max_replicas))


def deployment_scale(group: DeploymentGroup) -> Scale:
    """A set number, or bounds."""
    if group.max_replicas:
        minimum = max(1, group.min_replicas)
        return Scale(minimum, max(minimum, group.max_replicas))
    return Scale(group.replicas, group.replicas)


def fixed_ports(health_port: int = HEALTH_PORT) -> dict[str, str]:
    """Where the ports and probes of a pod that takes HTTP lead."""
    return {"HTTP_PORT": str(HTTP_PORT), "HEALTH_PORT": str(health_port)}


def workers_environment(spec: WorkersField) -> dict[str, Value]:
    """How many processes; nothing where one is enough."""
    return {"WORKERS": str(spec.workers)} if spec.workers > 1 else {}


def _listening(fixed: Mapping[str, str]) -> dict[str, Value]:
    """The addresses that belong to the ports: all of the pod's."""
    return {name.replace("_PORT", "_HOST"): _ALL_ADDRESSES for name in ("HTTP_PORT", "HEALTH_PORT") if name in fixed}


def environment(
    wanted: Wanted[Any],
    *,
    fixed: Mapping[str, str],
    values: Mapping[str, Value],
    chosen: Mapping[str, Value] | None = None,
    objects: Iterable[str] = (),
    reserved: Collection[str] = (),
) -> Environment:
    """A container's environment; ``objects`` are keys of ``found`` whose ConfigMaps and Secrets are in its
    ``envFrom``, beside the one of ``serviceConfigName``.
    ``env`` of the resource does not reach the ``reserved`` names, which mean something else in this container."""
    spec: Spec = wanted.spec
    return Environment(
        fixed=fixed,
        values={**_listening(fixed), **values},
        chosen=chosen or {},
        brought=keys_of(*(wanted.found.get(key) for key in objects)),
        overridden=keys_of(wanted.found.get("service_config")),
        overrides=[(each.name, each.value) for each in spec.env if each.name not in reserved],
    )


def service_config_env(spec: Spec) -> list[Json]:
    """``envFrom`` of ``serviceConfigName``, which comes last and so wins."""
    return [config_map_env(spec.service_config_name)] if spec.service_config_name else []


def drain_seconds(wanted: Wanted[Any], default: int, objects: tuple[str, str] = ("", "")) -> float:
    """``DRAIN_SECONDS`` as the container will have it: the pod's grace period follows it.

    ``objects`` are the keys in ``found`` of the ConfigMap and the Secret that are in the container's ``envFrom``.
    """
    name, found = "DRAIN_SECONDS", wanted.found
    weakest_first = [
        value_of(name, *(found.get(key) for key in objects)),
        value_of(name, found.get("service_config")),
        *(each.value for each in wanted.spec.env if each.name == name),
    ]
    text = next((each for each in reversed(weakest_first) if each is not None), "")
    try:
        seconds = float(text) if text else float(default)
    except ValueError:
        return float(default)
    return seconds if 0 < seconds < 86_400 else float(default)


def checksum(wanted: Wanted[Any], own: Mapping[str, Json] | None = None) -> str:
    """The checksum of what the resource's pods read when they start; ``own`` are ConfigMaps that the operator makes, by
    key. Certificates of DICOM connections are read again by the pods themselves."""
    found = {key: one for key, one in wanted.found.items() if not key.startswith(_READ_AGAIN)}
    return config_checksum(found, own or {})


def plain_objects(
    wanted: Wanted[Any],
    settings: Any,
    workload: Workload,
    services: Sequence[Json],
    *,
    private: bool = False,
    lag: Lag | None = None,
) -> list[Json]:
    """A workload without Knative, in the order of application. ``lag`` is used where KEDA is."""
    spec: Spec = wanted.spec
    wished = settings.NETWORK_POLICY if spec.network_policy is None else spec.network_policy
    return [
        service_account(wanted, workload),
        *([network_policy(wanted, workload, private=private)] if wished else []),
        *services,
        deployment(wanted, workload),
        *disruption_budget(wanted, workload),
        *autoscaling(wanted, workload, lag if settings.KEDA and wanted.features.keda else None),
    ]


def observed_object(observed: Sequence[Json], kind: str, name: str) -> Json | None:
    """One of the resource's objects in the API groups of Kubernetes itself."""
    for each in observed:
        if (
            each.get("kind") == kind
            and each["metadata"]["name"] == name
            and "knative" not in each.get("apiVersion", "")
        ):
            return each
    return None


def scaled_status(observed: Sequence[Json], name: str) -> Json:
    """``replicas`` and ``selector`` for the scale subresource."""
    found = observed_object(observed, "Deployment", name)
    if found is None:
        return {}
    label, value = next(iter(selector(name).items()))
    return {"replicas": int((found.get("status") or {}).get("replicas") or 0), "selector": f"{label}={value}"}
