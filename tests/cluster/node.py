"""A whole cluster of one node: containerd, kubelet, kube-proxy and CoreDNS beside a control plane. Needs root.

Its pods are on a bridge of its own with no way out; the node is the bridge's first address. There is one such cluster
on a machine: kube-proxy has one table.
"""

import fcntl
import os
import shutil
import string
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO

from cluster import images
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
# Debian's package for each program of the system that a node needs.
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "openssl": "openssl",
}
_PARTS = ("kubelet", "coredns", "kube-proxy", "kube-scheduler")


class Node:
    """The cluster; its state is in ``folder``, which must be short enough for the paths of Unix sockets."""

    def __init__(self, folder: Path = CACHE / "node", *, tied: bool) -> None:
        _require_system()
        self.state = folder / "state"
        self.run = folder / "run"
        self.configuration = folder / "configuration"
        self.processes = Processes(self.run, tied=tied)
        self.programs = programs(NODE + CONTROL_PLANE)
        self._lock = _lock(folder)
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
        _bridge_up()
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
        """A second name for an image on the node."""
        self.ctr("images", "tag", "--force", name, another)

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
        if self.processes.pid("containerd"):
            self._empty()
        self.processes.stop_all((*_PARTS, "kube-controller-manager", "kube-apiserver", "etcd", "containerd"))
        _unmount_below(self.folder)
        for family in ("ip", "ip6"):
            _quietly("nft", "delete", "table", family, "kube-proxy")
        _quietly("ip", "link", "delete", BRIDGE)
        for group in sorted(Path("/sys/fs/cgroup").glob("**/kubepods*/"), key=lambda path: -len(path.parts)):
            _remove_groups(group)
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
        containerd = shutil.which("containerd") or "containerd"
        self.processes.start("containerd", containerd, "--config", self.configuration / "containerd.toml")
        self.processes.wait_for("containerd", _succeeds(lambda: self.ctr("version")))
        archive = self.state / "pause.tar"
        images.one_program(archive, "localhost/pause:1", self.programs["pause"])
        self.load(archive)

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
        self.processes.wait_for("coredns", lambda: _quietly("curl", "-fsS", "--noproxy", "*", "-m", "2", ready))
        self.processes.wait_for("kube-proxy", lambda: _quietly("nft", "list", "table", "ip", "kube-proxy"))

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


def _require_system() -> None:
    if os.geteuid() != 0:
        raise ClusterError("a node needs root")
    missing = sorted({package for program, package in PACKAGES.items() if not shutil.which(program)})
    if missing:
        raise ClusterError(f"install {' '.join(missing)}")


def _lock(folder: Path) -> IO[str]:
    """Held as long as the object lives."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another session that uses this machine's cluster", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _bridge_up() -> None:
    commands = (
        ("ip", "link", "add", BRIDGE, "type", "bridge"),
        ("ip", "address", "replace", f"{NETWORK.address}/24", "dev", BRIDGE),
        ("ip", "link", "set", BRIDGE, "up"),
    )
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    between_pods = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if between_pods.exists():  # an answer from pod to pod must pass the address translation too
        between_pods.write_text("1")


def _unmount_below(folder: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        _quietly("umount", "-l", mount)


def _remove_groups(group: Path) -> None:
    """A control group and those in it; one that still has processes stays."""
    for inner, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(inner)
        except OSError as error:
            print(f"{inner} stays: {error.strerror}", flush=True)


def _succeeds(action: Callable[[], object]) -> Callable[[], bool]:
    def tried() -> bool:
        try:
            action()
        except (ClusterError, KubectlError):
            return False
        return True

    return tried


def _quietly(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
