"""Knative's objects: Service (Serving), Broker, Trigger and SinkBinding (Eventing)."""

from collections.abc import Sequence

from imaging_operator.builders.names import CHECKSUM, labels, metadata, service_name
from imaging_operator.builders.pod import USER, Container, mounts, resources, volumes
from imaging_operator.builders.types import Json, Owner
from imaging_operator.builders.workload import Workload

HEALTH_PORT = 9095
"""Knative's own sidecar has 9090 (and 8012, 8013, 8022, 8112 and 9091)."""
_SERVING = "serving.knative.dev/v1"
_EVENTING = "eventing.knative.dev/v1"
_VISIBILITY = "cluster-local"


def knative_service(
    owner: Owner, workload: Workload, *, concurrency: int, public: bool = False, retention_seconds: int = 0
) -> Json:
    """A Knative Service; ``workload.scale`` are its bounds, 0 for none. The last pod stays for ``retention_seconds``
    after Knative has decided that it is not needed.

    Knative takes neither a pod's security context, nor lifecycle hooks or a grace period, and probes the port itself.
    """
    template: Json = {
        "metadata": {
            "labels": labels(owner, workload.component),
            "annotations": {
                **workload.options.pod_annotations,
                "autoscaling.knative.dev/maxScale": str(workload.scale.maximum),
                "autoscaling.knative.dev/minScale": str(workload.scale.minimum),
                CHECKSUM: workload.checksum,
                **(
                    {"autoscaling.knative.dev/scale-to-zero-pod-retention-period": f"{retention_seconds}s"}
                    if retention_seconds
                    else {}
                ),
            },
        },
        "spec": _revision(workload, concurrency),
    }
    visibility = (
        {}
        if public
        else {"serving.knative.dev/visibility": _VISIBILITY, "networking.knative.dev/visibility": _VISIBILITY}
    )
    return {
        "apiVersion": _SERVING,
        "kind": "Service",
        "metadata": metadata(owner, service_name(owner, workload.name), workload.component, extra_labels=visibility),
        "spec": {"template": template},
    }


def _revision(workload: Workload, concurrency: int) -> Json:
    options = workload.options
    revision: Json = {
        "serviceAccountName": workload.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containerConcurrency": concurrency,
        "imagePullSecrets": [{"name": name} for name in options.pull_secrets],
        "containers": [_container(workload.containers[0], workload)],
        "volumes": volumes(workload.containers[:1], options.resources),
        # Knative refuses these three unless its features are turned on; whoever sets them has done so.
        "nodeSelector": dict(options.node_selector),
        "tolerations": list(options.tolerations),
        "affinity": dict(options.affinity),
    }
    return {key: value for key, value in revision.items() if value not in ([], {})}


def _container(it: Container, workload: Workload) -> Json:
    options = workload.options
    document: Json = {
        "name": it.name,
        "image": it.image,
        "args": list(it.arguments),
        "imagePullPolicy": options.pull_policy,
        "env": it.environment.render(),
        "envFrom": list(it.env_from),
        "ports": [{"containerPort": it.port.number}] if it.port else [],
        "resources": resources(it.size, options.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": it.ours,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts(it),
    }
    return {key: value for key, value in document.items() if value not in ([], {}, "")}


def broker(owner: Owner, name: str, component: str) -> Json:
    """A Broker of the cluster's default class."""
    return {
        "apiVersion": _EVENTING,
        "kind": "Broker",
        "metadata": metadata(owner, name, component, extra_labels={"eventing.knative.dev/visibility": _VISIBILITY}),
        "spec": {},
    }


def trigger(owner: Owner, name: str, component: str, *, broker_name: str, event_type: str, subscriber: Json) -> Json:
    """A Trigger for events of one type; of every type when ``event_type`` is empty."""
    spec: Json = {"broker": broker_name, "subscriber": {"ref": subscriber}}
    if event_type:
        spec["filter"] = {"attributes": {"type": event_type}}
    return {"apiVersion": _EVENTING, "kind": "Trigger", "metadata": metadata(owner, name, component), "spec": spec}


def sink_binding(owner: Owner, name: str, component: str, *, subject: str, broker_name: str) -> Json:
    """What gives the Knative Service ``subject`` its ``K_SINK``."""
    return {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "SinkBinding",
        "metadata": metadata(owner, name, component),
        "spec": {
            "subject": knative_reference(subject),
            "sink": {"ref": {"apiVersion": _EVENTING, "kind": "Broker", "name": broker_name}},
        },
    }


def knative_reference(name: str) -> Json:
    """A Knative Service of the same namespace."""
    return {"apiVersion": _SERVING, "kind": "Service", "name": name}


def service_reference(name: str) -> Json:
    """A core Service of the same namespace."""
    return {"apiVersion": "v1", "kind": "Service", "name": name}


def address(observed: Sequence[Json], kind: str, name: str) -> str:
    """Cluster-local URL of a Broker or Knative Service as its controller reports it; empty until then."""
    found = _status(observed, kind, name).get("address") or {}
    return str(found.get("url") or "")


def public_url(observed: Sequence[Json], name: str) -> str:
    """Public URL of a Knative Service; empty until its route is there."""
    return str(_status(observed, "Service", name).get("url") or "")


def _status(observed: Sequence[Json], kind: str, name: str) -> Json:
    for each in observed:
        group = each.get("apiVersion", "")
        if each.get("kind") == kind and each["metadata"]["name"] == name and "knative.dev" in group:
            return each.get("status") or {}
    return {}
