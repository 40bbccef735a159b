"""The same cluster by kind, on machines with a Docker engine."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from cluster.errors import ClusterError
from cluster.images import ROOT
from cluster.kubectl import Kubectl
from cluster.programs import programs

CLUSTER = "imaging-test"


def is_possible() -> bool:
    """True when a Docker engine answers and kind is installed."""
    if not (shutil.which("docker") and shutil.which("kind")):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=60, check=False).returncode == 0


class Kind:
    """A cluster of one node in a Docker container."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self.programs = programs(["kubectl", "helm"])

    @property
    def address(self) -> str:
        """Where the node's ports are reached from this machine."""
        shown = _run("docker", "inspect", f"{CLUSTER}-control-plane")
        networks = json.loads(shown)[0]["NetworkSettings"]["Networks"]
        return str(networks["kind"]["IPAddress"])

    def start(self) -> Kubectl:
        """Start afresh."""
        self.stop()
        _run("kind", "create", "cluster", f"--name={CLUSTER}", f"--kubeconfig={self.kubeconfig}", "--wait=5m")
        return Kubectl(self.programs["kubectl"], self.kubeconfig)

    def stop(self) -> None:
        """Remove the cluster."""
        _run("kind", "delete", "cluster", f"--name={CLUSTER}", f"--kubeconfig={self.kubeconfig}")

    def load(self, archive: Path) -> None:
        """Import the images of a docker archive."""
        _run("kind", "load", "image-archive", str(archive), f"--name={CLUSTER}")

    def tag(self, name: str, another: str) -> None:
        """A second name for an image on the node."""
        _run("docker", "tag", name, another)
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "image.tar"
            _run("docker", "save", "--output", str(archive), another)
            self.load(archive)


def build_image(name: str, archive: Path, *, target: str = "") -> None:
    """Build the project's Dockerfile with Docker, and write the image as a docker archive."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    _run("docker", "build", *([f"--target={target}"] if target else []), f"--tag={name}", str(ROOT))
    _run("docker", "save", "--output", str(archive), name)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command[:2])} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout
