"""What the specs of all kinds share, and the groups of fields that describe workloads."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError

from imaging_operator.errors import Wrong
from imaging_operator.specs.kubernetes import Affinity, EnvironmentVariable, LocalReference, Resources, Toleration
from imaging_operator.specs.model import Int32, Int64, Model, ObjectName, Rule

REPLICA_BOUNDS = Rule(
    "!has(self.maxReplicas) || self.maxReplicas == 0 || !has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
    "minReplicas is larger than maxReplicas",
)


class Workload(Model):
    """What every workload of a kind may set for itself."""

    image: str = Field(default="", description="container image; empty: the operator's image for this component")
    resources: Resources | None = Field(
        default=None, description="requests and limits of this workload; wins over resources of the spec"
    )


class ServiceGroup(Workload):
    """An elastic HTTP service or event consumer."""

    rules: ClassVar[tuple[Rule, ...]] = (REPLICA_BOUNDS,)

    concurrency: Int64 = Field(
        default=0, ge=0, description="hard limit of simultaneous requests per pod; 0 is no limit"
    )
    min_replicas: Int32 = Field(
        default=0,
        ge=0,
        description="lower bound of replicas; 0 allows scaling to zero under Knative, and means 1 without it",
    )
    max_replicas: Int32 = Field(
        default=0,
        ge=0,
        description="upper bound of replicas; 0 is no limit under Knative, and no autoscaling without it",
    )


class DeploymentGroup(Workload):
    """A workload of a set number of replicas, or of a number between two bounds."""

    rules: ClassVar[tuple[Rule, ...]] = (REPLICA_BOUNDS,)

    replicas: Int32 = Field(
        default=1, ge=0, description="number of replicas, when maxReplicas is 0; also set by kubectl scale"
    )
    min_replicas: Int32 = Field(default=0, ge=0, description="lower bound of autoscaling; 0 means 1")
    max_replicas: Int32 = Field(
        default=0, ge=0, description="upper bound of autoscaling; 0: none, the number is that of replicas"
    )


class ImagePull(Model):
    """The image pull group (section 1.2 of the interface)."""

    image_pull_policy: Literal["", "Always", "Never", "IfNotPresent"] = Field(
        default="", description="pull policy of every container; empty: the cluster's default"
    )
    image_pull_secrets: tuple[LocalReference, ...] = Field(
        default=(), description="Secrets with credentials for registries, copied to every pod"
    )


class PodFields(Model):
    """What all kinds let the user say about their pods and what surrounds them."""

    resources: Resources | None = Field(
        default=None,
        description="requests and limits of every container; members that are absent keep the operator's default",
    )
    node_selector: dict[str, str] = Field(default={}, description="labels of the nodes that pods may run on")
    tolerations: tuple[Toleration, ...] = Field(default=(), description="taints of nodes that pods tolerate")
    affinity: Affinity | None = Field(
        default=None, description="node affinity, pod affinity and anti-affinity of pods, as in a Pod's spec"
    )
    pod_annotations: dict[str, str] = Field(default={}, description="annotations of every pod")
    service_account_annotations: dict[str, str] = Field(
        default={}, description="annotations of the ServiceAccounts, for instance of cloud identities"
    )
    env: tuple[EnvironmentVariable, ...] = Field(
        default=(),
        max_length=200,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="environment variables of every container; they win over everything the operator sets and over "
        "serviceConfigName",
    )
    service_config_name: ObjectName = Field(
        default="",
        description="ConfigMap whose keys become environment variables of every container; they win over what the "
        "operator sets",
    )
    network_policy: bool | None = Field(
        default=None, description="whether NetworkPolicies are made for the pods; absent: as the operator is set"
    )


class Spec(ImagePull, PodFields):
    """Base of the seven specs."""

    @classmethod
    def parse(cls, spec: Mapping[str, Any] | None) -> Self:
        """The spec of a resource as the API server holds it. Raises ``Wrong``, which names each wrong field: an older
        CRD may have let it in."""
        try:
            return cls.model_validate(dict(spec or {}))
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, ('spec', *item['loc'])))}: {item['msg']}" for item in error.errors()]
            raise Wrong("; ".join(lines)) from None

    def resources_of(self, workload: Workload) -> Resources:
        """The requests and limits asked for: the workload's, completed by the spec's."""
        return Resources.merged(self.resources, workload.resources)


class KnativeField(Model):
    """Kinds that may run on Knative."""

    knative: bool | None = Field(
        default=None,
        description="true: Knative Services, Brokers and Triggers; false: plain Deployments, Services and JetStream; "
        "absent: as the operator is set",
    )


class WorkersField(Model):
    """Kinds whose services may run as several processes in each pod."""

    workers: Int32 = Field(
        default=1,
        ge=1,
        le=64,
        description="processes in each pod that share its port and its work, for as many cores: give the pods as much "
        "CPU. The default requests and limits grow with them; limits of associations count for each process",
    )


class EdiReference(Model):
    """Kinds that belong to a DicomEventDrivenIngestion."""

    dicom_event_driven_ingestion_name: str = Field(
        description="DicomEventDrivenIngestion, in the same namespace, that this resource belongs to"
    )
