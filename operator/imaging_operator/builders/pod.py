"""Containers and pods: probes, resources, security, scratch space and mounts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imaging_operator.builders.environment import Environment
from imaging_operator.builders.types import Json

HTTP_PORT = 8080
DICOM_PORT = 11112
HEALTH_PORT = 9090
USER = 10001
SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of the pod's own
PRE_STOP_SECONDS = 10
"""A Service still sends connections to a pod for a moment after it was told to stop."""
_STOP_MARGIN_SECONDS = 10
"""After the drain: closing connections (3 seconds in the services' runtime), and a loaded node."""


PARENT_MEBIBYTES = 96
"""The parent of several workers: 60 MB measured."""


def _number(amount: str, unit: str) -> int:
    return int(amount.removesuffix(unit))


def _mebibytes(amount: str) -> int:
    return _number(amount, "Gi") * 1024 if amount.endswith("Gi") else _number(amount, "Mi")


@dataclass(frozen=True, slots=True)
class Port:
    """Where a container takes traffic."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume and where it is mounted, read-only."""

    name: str
    path: str
    source: Json


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What a resource says about its pods."""

    pull_policy: str = ""
    pull_secrets: Sequence[str] = ()
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Json] = ()
    affinity: Json = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    service_account_annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Size:
    """Resources of a container where the resource says nothing."""

    cpu: str
    memory: str
    memory_limit: str = "384Mi"
    scratch: str = "10Gi"

    def of_workers(self, workers: int) -> "Size":
        """That of so many processes and their parent. Scratch space stays: the work to be done is the same."""
        if workers == 1:
            return self
        return Size(
            cpu=f"{_number(self.cpu, 'm') * workers}m",
            memory=f"{_mebibytes(self.memory) * workers + PARENT_MEBIBYTES}Mi",
            memory_limit=f"{_mebibytes(self.memory_limit) * workers + PARENT_MEBIBYTES}Mi",
            scratch=self.scratch,
        )


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a workload."""

    name: str
    image: str
    arguments: Sequence[str]
    """Empty for an image that is not ours: its own entry point stands."""
    environment: Environment
    size: Size
    env_from: Sequence[Json] = ()
    mounts: Sequence[Mount] = ()
    port: Port | None = None

    @property
    def ours(self) -> bool:
        """It is one of our components, with health endpoints and a read-only root file system."""
        return bool(self.arguments)


def container(it: Container, options: PodOptions, *, health_port: int = HEALTH_PORT, lifecycle: bool = True) -> Json:
    """A container of a Deployment."""
    document: Json = {
        "name": it.name,
        "image": it.image,
        "env": it.environment.render(),
        "resources": resources(it.size, options.resources),
        "securityContext": security_context(it.ours),
        "volumeMounts": mounts(it),
    }
    if options.pull_policy:
        document["imagePullPolicy"] = options.pull_policy
    if it.arguments:
        document["args"] = list(it.arguments)
    if it.env_from:
        document["envFrom"] = list(it.env_from)
    document["ports"] = ports(it, health_port)
    document |= probes(it, health_port)
    if it.port and lifecycle:
        document["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(PRE_STOP_SECONDS)]}}}
    return {key: value for key, value in document.items() if value not in ([], {})}


def ports(it: Container, health_port: int) -> list[Json]:
    """The ports of a container."""
    found = [it.port] if it.port else []
    if it.ours:
        found.append(Port("health", health_port))
    return [{"name": port.name, "containerPort": port.number, "protocol": "TCP"} for port in found]


def probes(it: Container, health_port: int) -> Json:
    """Probes of our health endpoints; of another image, that its port is open."""
    if it.ours:
        alive, ready = _http("/healthz"), _http("/readyz")
    elif it.port:
        alive = ready = {"tcpSocket": {"port": it.port.name}}
    else:
        return {}
    return {
        "startupProbe": {**alive, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 90},
        "livenessProbe": {**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2},
    }


def _http(path: str) -> Json:
    return {"httpGet": {"path": path, "port": "health"}}


def resources(size: Size, wished: Mapping[str, Mapping[str, str]]) -> Json:
    """Requests and limits. What the resource names, in either, is wholly its own: a default beside it could
    contradict it (a request above the limit is refused)."""
    named = {name for part in wished.values() for name in part}
    defaults = {
        "requests": {"cpu": size.cpu, "memory": size.memory},
        "limits": {"memory": size.memory_limit},
    }
    merged = {
        part: {name: amount for name, amount in defaults[part].items() if name not in named}
        | dict(wished.get(part, {}))
        for part in ("requests", "limits")
    }
    return {part: amounts for part, amounts in merged.items() if amounts}


def security_context(ours: bool) -> Json:
    """Of a container: the restricted Pod Security Standard, and where the image is ours a read-only root."""
    context: Json = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    if ours:
        context["readOnlyRootFilesystem"] = True
    return context


def mounts(it: Container) -> list[Json]:
    """Scratch space and the container's own mounts."""
    own = [{"name": mount.name, "mountPath": mount.path, "readOnly": True} for mount in it.mounts]
    return [*own, {"name": "scratch", "mountPath": SCRATCH}]


def volumes(containers: Sequence[Container], wished: Mapping[str, Mapping[str, str]]) -> list[Json]:
    """The volumes that the containers mount; scratch space is as large as the resource's ephemeral storage."""
    found = {mount.name: mount.source for each in containers for mount in each.mounts}
    limit = wished.get("limits", {}).get("ephemeral-storage") or containers[0].size.scratch
    own = [{"name": name, **source} for name, source in found.items()]
    return [*own, {"name": "scratch", "emptyDir": {"sizeLimit": limit}}]


def grace_seconds(drain_seconds: float, *, traffic: bool) -> int:
    """How long Kubernetes waits before it kills: the pre-stop wait, the drain and a margin."""
    return int(drain_seconds + (PRE_STOP_SECONDS if traffic else 0) + _STOP_MARGIN_SECONDS)


def config_map_mount(name: str, path: str, config_map: str) -> Mount:
    """A ConfigMap's keys as files."""
    return Mount(name, path, {"configMap": {"name": config_map}})


def secret_mount(name: str, path: str, secret: str) -> Mount:
    """A Secret's keys as files."""
    return Mount(name, path, {"secret": {"secretName": secret}})
