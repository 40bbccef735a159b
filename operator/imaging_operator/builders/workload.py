"""A workload: ServiceAccount and Deployment with one way of running, rolling and stopping."""

from collections.abc import Sequence
from dataclasses import dataclass

from imaging_operator.builders.names import CHECKSUM, label_name, labels, metadata
from imaging_operator.builders.pod import USER, Container, PodOptions, container, grace_seconds, volumes
from imaging_operator.builders.types import Json, Owner


@dataclass(frozen=True, slots=True)
class Scale:
    """How many pods. ``maximum`` above ``minimum`` lets an autoscaler decide."""

    minimum: int = 1
    maximum: int = 1

    @property
    def varies(self) -> bool:
        """An autoscaler decides."""
        return self.maximum > self.minimum

    @property
    def several(self) -> bool:
        """There may be more than one pod."""
        return max(self.minimum, self.maximum) > 1


@dataclass(frozen=True, slots=True)
class Workload:
    """Pods of one component."""

    name: str
    component: str
    containers: Sequence[Container]
    """The first is the service; others serve it."""
    options: PodOptions
    checksum: str
    scale: Scale = Scale()
    drain_seconds: float = 15

    @property
    def traffic(self) -> bool:
        """A Service sends connections to it."""
        return any(each.port for each in self.containers)


def service_account(owner: Owner, workload: Workload) -> Json:
    """The workload's identity; it needs no right in the cluster, so no token is mounted."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(
            owner, workload.name, workload.component, annotations=workload.options.service_account_annotations
        ),
        "automountServiceAccountToken": False,
    }


def deployment(owner: Owner, workload: Workload) -> Json:
    """The Deployment. Its selector, ``app: <name>``, is that of the reference system: an existing one is adopted."""
    spec: Json = {
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": selector(workload.name)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": {
                "labels": {**labels(owner, workload.component), **selector(workload.name)},
                "annotations": {**workload.options.pod_annotations, CHECKSUM: workload.checksum},
            },
            "spec": _pod(workload),
        },
    }
    # What an autoscaler sets is not ours to set back.
    if not workload.scale.varies:
        spec["replicas"] = workload.scale.minimum
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(
            owner, label_name(owner, workload.name), workload.component, extra_labels=selector(workload.name)
        ),
        "spec": spec,
    }


def selector(name: str) -> dict[str, str]:
    """The label that finds a workload's pods."""
    return {"app": name}


def _pod(workload: Workload) -> Json:
    options = workload.options
    pod: Json = {
        "serviceAccountName": workload.name,
        "automountServiceAccountToken": False,
        # Kubernetes would set DIMSE_PORT=tcp://... in every pod beside a Service of the name "dimse".
        "enableServiceLinks": False,
        "imagePullSecrets": [{"name": name} for name in options.pull_secrets],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(each, options) for each in workload.containers],
        "volumes": volumes(workload.containers, options.resources),
        "terminationGracePeriodSeconds": grace_seconds(workload.drain_seconds, traffic=workload.traffic),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector(workload.name)},
            }
        ],
        "nodeSelector": dict(options.node_selector),
        "tolerations": list(options.tolerations),
        "affinity": dict(options.affinity),
    }
    return {key: value for key, value in pod.items() if value not in ([], {})}
