"""The operator as a process of its own, with the rights of the chart and nothing more."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from prometheus_client.parser import text_string_to_metric_families

from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl, until
from imaging_services.local.ports import free_ports

RULES = Path(__file__).parents[2] / "charts" / "imaging-ingestion" / "files" / "rules.yaml"
USER = "imaging-operator"
_RBAC = "rbac.authorization.k8s.io/v1"
_SUBJECT = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}

Json = dict[str, Any]


def restricted_kubeconfig(plane: ControlPlane) -> Path:
    """Credentials of somebody who may do nothing yet."""
    return plane.kubeconfig_for(USER, f"/CN={USER}")


def grant(kubectl: Kubectl, *namespaces: str, lease_namespace: str) -> None:
    """What the chart grants: its rules in these namespaces, or in all when none is named; and the leader's Lease."""
    rules = yaml.safe_load(RULES.read_text())
    if not namespaces:
        kubectl.apply(_role("ClusterRole", rules), _binding("ClusterRole"))
    for namespace in namespaces:
        kubectl.apply(_role("Role", rules), _binding("Role"), namespace=namespace)
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    named = {**leases, "resourceNames": ["imaging-ingestion-operator"], "verbs": ["get", "update"]}
    lease_rules = [{**leases, "verbs": ["create"]}, named]
    kubectl.apply(_role("Role", lease_rules, "leader"), _binding("Role", "leader"), namespace=lease_namespace)


def revoke_everywhere(kubectl: Kubectl) -> None:
    """Undo ``grant`` without namespaces."""
    kubectl.delete("clusterrolebinding", USER)
    kubectl.delete("clusterrole", USER)


class OperatorProcess:
    """``python -m imaging_operator``; ends with the block."""

    def __init__(self, folder: Path, kubeconfig: Path, lease_namespace: str, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "operator.log"
        self._kubeconfig = kubeconfig
        self._health, self._metrics = free_ports(2)
        self._environment = {
            "KUBECONFIG": str(kubeconfig),
            "POD_NAMESPACE": lease_namespace,
            "POD_NAME": folder.name,
            "IMAGE": "registry.example/imaging-ingestion:test",
            "EVENTS_NATS_URL": "nats://nats.example:4222",
            "HEALTH_HOST": "127.0.0.1",
            "HEALTH_PORT": str(self._health),
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": str(self._metrics),
            "RETRY_SECONDS": "1",
            "RESYNC_SECONDS": "3600",  # so that what a test sees is due to events, unless it says otherwise
            "DISCOVERY_SECONDS": "2",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.begin()
        until(self.is_ready, account=self.last_words)

    def begin(self) -> None:
        """Start it."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "imaging_operator"], stderr=log, stdout=log, env=inherited | self._environment
            )

    def stop(self) -> int:
        """Ask it to end, as Kubernetes does; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = 60) -> int:
        """Its exit code, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """As a lost node would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def is_running(self) -> bool:
        """False once it has ended."""
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """What /readyz says."""
        assert self.is_running(), self.last_words()
        return self._answers(self._health, "/readyz") is not None

    def is_alive(self) -> bool:
        """What /healthz says."""
        return self._answers(self._health, "/healthz") is not None

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples with these labels."""
        text = self._answers(self._metrics, "/metrics")
        assert text is not None, "no /metrics"
        samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    def leads(self) -> bool:
        """Whether it is the one that works."""
        return self.metric("imaging_operator_leader") == 1

    def events(self) -> list[Json]:
        """What it logged; every line is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def forbidden(self) -> list[str]:
        """Log lines about a right that it was refused."""
        return [line for line in self.log.read_text().splitlines() if "ForbiddenError" in line or " may not " in line]

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text().splitlines()[-15:])

    def _answers(self, port: int, path: str) -> str | None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return str(response.read().decode()) if response.status == 200 else None
        except OSError:
            return None


def _role(kind: str, rules: list[Json], name: str = USER) -> Json:
    return {"apiVersion": _RBAC, "kind": kind, "metadata": {"name": name}, "rules": rules}


def _binding(kind: str, name: str = USER) -> Json:
    return {
        "apiVersion": _RBAC,
        "kind": f"{kind}Binding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [_SUBJECT],
    }


@contextmanager
def operator_of_the_whole_cluster(control_plane: ControlPlane, folder: Path) -> Iterator[OperatorProcess]:
    """An operator with the chart's rights, which were enough at its end; it stops when it is told to."""
    kubectl = Kubectl(control_plane.programs["kubectl"], control_plane.kubeconfig)
    home = kubectl.new_namespace("operator")
    grant(kubectl, lease_namespace=home)
    with OperatorProcess(folder, restricted_kubeconfig(control_plane), home) as process:
        yield process
        assert process.forbidden() == []
        assert process.stop() == 0
    revoke_everywhere(kubectl)
