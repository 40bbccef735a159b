"""A whole cluster of one node: containerd, kubelet, kube-proxy and CoreDNS beside a control plane. Needs root.

Its pods are on a bridge of its own with no way out; the node is the bridge's first address. There is one such cluster
on a machine: kube-proxy has one table.
"""

import contextlib
import shutil
import string
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

from cluster import images, machine
from cluster.control_plane import ControlPlane, Network
from cluster.errors import ClusterError
from cluster.kubectl import Json, Kubectl, KubectlError
from cluster.processes import Processes
from cluster.programs import CACHE, CONTROL_PLANE, NODE, programs

FILES = Path(__file__).parent / "files"
NAME = "imaging-node"
BRIDGE = "imaging-test0"
PODS = "10.244.77"
NETWORK = Network(address=f"{PODS}.1")
DNS = f"{NETWORK.services}.10"
VOLUMES = 12
_PARTS = ("kubelet", "coredns", "kube-proxy", "kube-scheduler")


class Node:
    """The cluster; its state is in ``folder``, which must be short enough for the paths of Unix sockets."""

    def __init__(self, folder: Path = CACHE / "node", *, tied: bool) -> None:
        machine.require_system()
        self.state = folder / "state"
        self.run = folder / "run"
        self.configuration = folder / "configuration"
        self.processes = Processes(self.run, tied=tied)
        self.programs = programs(NODE + CONTROL_PLANE)
        self._lock = machine.lock(folder)
        self.folder = folder

    @property
    def kubeconfig(self) -> Path:
        """Of somebody with every right."""
        return self.state / "kubeconfig"

    @property
    def address(self) -> str:
        """Where the node's ports are reached from this machine."""
        return NETWORK.address

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.run / "containerd.sock"

    def start(self) -> Kubectl:
        """Start afresh; returns when the node is ready, its DNS answers and its Services are routed."""
        self._clear()
        for folder in (self.state, self.run, self.configuration / "cni"):
            folder.mkdir(parents=True)
        machine.bridge_up(BRIDGE, NETWORK.address, self.configuration)
        self.plane = ControlPlane(self.state, self.processes, NETWORK)
        self._write_files()
        self.plane.start()
        self.kubectl = Kubectl(self.programs["kubectl"], self.kubeconfig)
        self.kubectl("apply", "-f", self.configuration / "dns.yaml")
        self._offer_volumes()
        self._start_containerd()
        self._start_parts()
        return self.kubectl

    def stop(self) -> None:
        """Stop everything and leave nothing behind."""
        self._clear()
        self._lock.close()

    def load(self, archive: Path) -> None:
        """Import the images of a docker archive."""
        self.ctr("images", "import", archive)

    def tag(self, name: str, another: str) -> None:
        """A second name for an image on the node. A name without a registry's means the one that containerd adds."""
        full = next(each for each in self.ctr("images", "ls", "-q").splitlines() if each.endswith(f"/{name}"))
        other = another if "/" in another else full.removesuffix(name) + another
        self.ctr("images", "tag", "--force", full, other)

    def ctr(self, *arguments: str | Path) -> str:
        """containerd's command line client, in Kubernetes' name space."""
        command = ["ctr", "--address", self.socket, "--namespace", "k8s.io", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise ClusterError(done.stderr.strip())
        return done.stdout

    def _clear(self) -> None:
        """Take every program, pod, mount, address and rule away, and forget all; also after a crash."""
        self.processes.stop("kubelet")
        if (self.configuration / "containerd.toml").exists():
            self._run_containerd()  # it may have been killed, which ends no pod
            self._empty()
        self.processes.stop_all((*_PARTS, "kube-controller-manager", "kube-apiserver", "etcd", "containerd"))
        machine.unmount_below(self.folder)
        machine.bridge_down(BRIDGE, self.configuration)
        machine.remove_groups()
        for folder in (self.state, self.run, self.configuration):
            shutil.rmtree(folder, ignore_errors=True)

    def _write_files(self) -> None:
        certificate, key = self.plane.authority.issue(
            "kubelet", f"/O=system:nodes/CN=system:node:{NAME}", f"DNS:{NAME}", f"IP:{NETWORK.address}"
        )
        common = {
            "state": self.state,
            "run": self.run,
            "socket": self.socket,
            "configuration": self.configuration,
            "bridge": BRIDGE,
            "pods": PODS,
            "address": NETWORK.address,
            "dns": DNS,
            "node": NAME,
            "ca": self.plane.authority.certificate,
            "certificate": certificate,
            "key": key,
        }
        for template, name in {
            **{name: name for name in ("containerd.toml", "kubelet.yaml", "kube-proxy.yaml", "Corefile", "dns.yaml")},
            "bridge.conflist": "cni/bridge.conflist",
        }.items():
            values = common | {"kubeconfig": self._kubeconfig({"Corefile": "coredns"}.get(name, "kube-proxy"))}
            text = string.Template((FILES / template).read_text()).substitute(values)
            (self.configuration / name).write_text(text)
        (self.configuration / "resolv.conf").write_text(f"nameserver {NETWORK.address}\n")

    def _offer_volumes(self) -> None:
        """A default storage class of directories on this machine, as many as the tests need at once."""
        self.kubectl.apply(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": "standard",
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": "kubernetes.io/no-provisioner",
                "volumeBindingMode": "WaitForFirstConsumer",
            },
            *(_volume(self.state / "volumes" / str(number)) for number in range(VOLUMES)),
        )

    def _kubeconfig(self, user: str) -> Path:
        return self.plane.kubeconfig_for(user, f"/CN=system:{user}")

    def _start_containerd(self) -> None:
        self._run_containerd()
        archive = self.state / "pause.tar"
        images.one_program(archive, "localhost/pause:1", self.programs["pause"])
        self.load(archive)

    def _run_containerd(self) -> None:
        containerd = shutil.which("containerd") or "containerd"
        self.processes.start("containerd", containerd, "--config", self.configuration / "containerd.toml")
        self.processes.wait_for("containerd", _succeeds(lambda: self.ctr("version")))

    def _start_parts(self) -> None:
        start, programs_, configuration = self.processes.start, self.programs, self.configuration
        scheduler = self._kubeconfig("kube-scheduler")
        start(
            "kube-scheduler",
            programs_["kube-scheduler"],
            *(f"--{purpose}kubeconfig={scheduler}" for purpose in ("", "authentication-", "authorization-")),
            *(f"--bind-address={NETWORK.address}", "--leader-elect=false"),
        )
        start("coredns", programs_["coredns"], "-conf", configuration / "Corefile")
        start("kube-proxy", programs_["kube-proxy"], f"--config={configuration / 'kube-proxy.yaml'}")
        kubelet = self.plane.kubeconfig_for("kubelet", f"/O=system:nodes/CN=system:node:{NAME}")
        start(
            "kubelet",
            programs_["kubelet"],
            *(f"--config={configuration / 'kubelet.yaml'}", f"--kubeconfig={kubelet}"),
            *(f"--root-dir={self.state / 'kubelet'}", f"--cert-dir={self.state / 'kubelet' / 'pki'}"),
            *(f"--hostname-override={NAME}", f"--node-ip={NETWORK.address}"),
        )
        ready = f"http://{NETWORK.address}:8181/ready"
        self.processes.wait_for("kubelet", self._node_is_ready)
        self.processes.wait_for("coredns", lambda: _answers(ready))
        self.processes.wait_for("kube-proxy", lambda: machine.quietly("nft", "list", "table", "ip", "kube-proxy"))

    def _node_is_ready(self) -> bool:
        node = self.kubectl.get("node", NAME)
        conditions = node["status"].get("conditions", []) if node else []
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def _empty(self) -> None:
        done = subprocess.run(
            [self.programs["empty-node"], self.socket], capture_output=True, text=True, timeout=180, check=False
        )
        if done.returncode:
            print(f"some pods would not go: {done.stderr.strip()}", flush=True)


def _volume(path: Path) -> Json:
    path.mkdir(parents=True)
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"directory-{path.name}"},
        "spec": {
            "storageClassName": "standard",
            "capacity": {"storage": "100Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def _succeeds(action: Callable[[], object]) -> Callable[[], bool]:
    def tried() -> bool:
        try:
            action()
        except (ClusterError, KubectlError):
            return False
        return True

    return tried


def _answers(url: str) -> bool:
    with (
        contextlib.suppress(OSError),
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2),
    ):
        return True
    return False
