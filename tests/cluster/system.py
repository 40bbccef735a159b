"""The product on a cluster, as its users see it: helm, kubectl, storescu, DICOMweb, a subscriber's log."""

import json
import os
import subprocess
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.images import ROOT
from cluster.kubectl import Json, Kubectl, KubectlError, until
from imaging_services.local.ports import accepts

NAMESPACE = "imaging"
RELEASE = "imaging"
CHART = ROOT / "charts" / "imaging-ingestion"
EXAMPLES = ROOT / "examples" / "kubernetes"
KINDS = (
    "dicomeventdriveningestions",
    "dicomwebingestionservices",
    "dicominstancebindings",
    "dicomstudybindings",
    "dimseingestionservices",
    "dimseproxies",
    "dicomeventbridges",
)
AE_TITLE = "CLOUD"
DICOM_PORT = 31112  # complete-system.yaml's node port


@dataclass(frozen=True)
class System:
    """complete-system.yaml on the servers of trial-values.yaml."""

    kubectl: Kubectl
    helm_program: Path
    address: str
    """Of the node."""

    @property
    def dicom(self) -> dict[str, object]:
        """Where modalities send to."""
        return {"host": self.address, "port": DICOM_PORT, "ae_title": AE_TITLE}

    def helm(self, *arguments: str | Path, seconds: float = 600) -> str:
        """Output of a helm command in the release's namespace."""
        done = subprocess.run(
            [self.helm_program, "-n", NAMESPACE, *arguments],
            env=os.environ | {"KUBECONFIG": str(self.kubectl.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise KubectlError(f"helm {arguments[0]}: {done.stderr.strip()}\n{self.account()}")
        return done.stdout

    def wait_ready(self, seconds: float = 420) -> None:
        """Until every resource says that all of it is ready, and no pod of an earlier roll-out is left."""
        until(self._is_ready, seconds, self.account)

    def _is_ready(self) -> bool:
        resources = self.resources()
        deployments = self.kubectl.objects("deployments", NAMESPACE)
        return bool(resources) and all(map(is_ready, resources)) and all(map(is_rolled_out, deployments))

    def resources(self) -> list[Json]:
        """All of the seven kinds."""
        return self.kubectl.objects(",".join(KINDS), NAMESPACE)

    def dicomweb(self, path: str, **query: object) -> list[Json]:
        """JSON of a QIDO-RS request, through the API server; an empty answer is an empty list."""
        asked = f"?{urllib.parse.urlencode(query)}" if query else ""
        service = f"/api/v1/namespaces/{NAMESPACE}/services/north-wado:80/proxy"
        answer = self.kubectl("get", "--raw", f"{service}/wado-rs/{path}{asked}")
        return list(json.loads(answer)) if answer.strip() else []

    def stored(self, study: str) -> set[str]:
        """UIDs of the instances of a study that QIDO-RS finds."""
        found: set[str] = set()
        while True:
            page = self.dicomweb(f"studies/{study}/instances", limit=500, offset=len(found))
            found |= {each["00080018"]["Value"][0] for each in page}
            if len(page) < 500:
                return found

    def wait_stored(self, study: str, instances: Iterable[str], seconds: float = 300) -> None:
        """Until each of the instances is found."""
        wanted = set(instances)
        until(lambda: wanted <= self._found_now(study), seconds, lambda: f"{self._missing(study, wanted)}")

    def _found_now(self, study: str) -> set[str]:
        try:
            return self.stored(study)
        except KubectlError:  # the pod that answers is being replaced
            return set()

    def _missing(self, study: str, wanted: set[str]) -> str:
        missing = wanted - self._found_now(study)
        return f"{len(missing)} of {len(wanted)} instances are missing\n{self.account()}"

    @contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[None]:
        """A local port that leads to a Service's port 80, as ``kubectl port-forward`` makes it."""
        command = [self.kubectl.program, f"--kubeconfig={self.kubectl.kubeconfig}", "-n", NAMESPACE, "port-forward"]
        with subprocess.Popen([*command, f"service/{service}", f"{port}:80"], stdout=subprocess.DEVNULL) as process:
            try:
                until(lambda: process.poll() is not None or accepts(port), 60)
                assert process.poll() is None, f"port {port} is taken"
                yield
            finally:
                process.terminate()

    def announced(self) -> list[tuple[str, str]]:
        """Type and id of each CloudEvent that the subscriber has got."""
        log = self.kubectl("-n", NAMESPACE, "logs", "deployment/subscriber")
        return [(words[0], words[1]) for words in map(str.split, log.splitlines()) if len(words) == 2]

    def account(self) -> str:
        """How things stand, for a failed test."""
        asked = (
            ("get", ",".join(KINDS), "-o", "wide"),
            ("get", "pods,pvc", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", f"deployment/{RELEASE}-operator", "--tail=20"),
        )
        return "\n".join(self._asked(*arguments) for arguments in asked)

    def _asked(self, *arguments: str) -> str:
        try:
            return self.kubectl("-n", NAMESPACE, *arguments)
        except KubectlError as error:
            return str(error)


def is_ready(resource: Json) -> bool:
    """The resource's status is of its present spec, and says that everything is ready."""
    status = resource.get("status") or {}
    generation = resource["metadata"]["generation"]
    return status.get("ready") is True and status.get("observedGeneration") == generation


def is_rolled_out(deployment: Json) -> bool:
    """All pods of a Deployment are of its present template and ready, and no other is left."""
    status, wanted = deployment.get("status") or {}, deployment["spec"]["replicas"]
    seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")]
    return seen and counts == [wanted] * 4
