"""The kinds of Kubernetes objects that the operator reads, makes and watches, and where the API serves them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from imaging_operator.specs.resources import GROUP, VERSION

Json = dict[str, Any]


class Key(NamedTuple):
    """One of the seven kinds' resources: the unit of work."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection of the API; all that the operator uses are namespaced."""

    group: str
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        """As written in objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """Path of the group and version."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection, or of one object; no namespace means all of them."""
        parts = [self.root]
        parts += ["namespaces", namespace] if namespace else []
        parts += [self.plural]
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


SECRET = Resource("", "v1", "Secret", "secrets")
CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps")
LEASE = Resource("coordination.k8s.io", "v1", "Lease", "leases")
EVENT = Resource("events.k8s.io", "v1", "Event", "events")

KNATIVE_SERVICE = Resource("serving.knative.dev", "v1", "Service", "services")
BROKER = Resource("eventing.knative.dev", "v1", "Broker", "brokers")
TRIGGER = Resource("eventing.knative.dev", "v1", "Trigger", "triggers")
SINK_BINDING = Resource("sources.knative.dev", "v1", "SinkBinding", "sinkbindings")
SCALED_OBJECT = Resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
DEPLOYMENT = Resource("apps", "v1", "Deployment", "deployments")
AUTOSCALER = Resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")

OWNED = (
    Resource("", "v1", "ServiceAccount", "serviceaccounts"),
    CONFIG_MAP,
    Resource("", "v1", "Service", "services"),
    DEPLOYMENT,
    Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    AUTOSCALER,
    Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    Resource("networking.k8s.io", "v1", "Ingress", "ingresses"),
    SCALED_OBJECT,
    BROKER,
    KNATIVE_SERVICE,
    SINK_BINDING,
    TRIGGER,
)
"""What may belong to a resource, in the order in which it is applied: a workload after what it needs."""


def custom(kind: str, plural: str) -> Resource:
    """One of the seven kinds."""
    return Resource(GROUP, VERSION, kind, plural)


def identity(document: Json) -> tuple[str, str, str]:
    """apiVersion, kind and name: unique in a namespace."""
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def owned(document: Json) -> Resource:
    """Where an object that a builder made is served. Raises ``KeyError`` for a kind that is not in ``OWNED``."""
    return _OWNED[document["apiVersion"], document["kind"]]


def controller(document: Json) -> Json | None:
    """The owner reference of the one that controls an object."""
    references = document.get("metadata", {}).get("ownerReferences") or []
    return next((each for each in references if each.get("controller")), None)


def in_order(documents: Iterable[Json]) -> list[Json]:
    """Sorted as ``OWNED``, so that what a workload needs comes before it."""
    order = {each: number for number, each in enumerate(OWNED)}
    return sorted(documents, key=lambda document: order[owned(document)])


_OWNED = {(each.api_version, each.kind): each for each in OWNED}
