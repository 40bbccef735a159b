"""etcd, the API server and the controller manager: Kubernetes without a node. Needs no root."""

import contextlib
import json
import random
import ssl
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from cluster.certificates import Authority
from cluster.processes import Processes
from cluster.programs import CONTROL_PLANE, programs
from imaging_services.local.ports import is_free

ADMIN = "/O=system:masters/CN=admin"
_LISTENERS = ("api", "etcd", "etcd-peer", "controller-manager")
_NAMES = ("DNS:localhost", "DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc")


@dataclass(frozen=True)
class Network:
    """Addresses of a cluster: where the API server listens, and the range of Services' addresses."""

    address: str = "127.0.0.1"
    services: str = "10.96.77"

    @property
    def api_service(self) -> str:
        """The first address of the Services is the API server's."""
        return f"{self.services}.1"


def lasting_ports(count: int) -> list[int]:
    """Free ports that stay free while their server is restarted.

    They are below the range from which the kernel takes the ports of outgoing connections: a client that calls a
    stopped server again and again would sooner or later be given the very port it calls, and be connected to itself.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = random.sample(range(15000, max(first, 20000)), 200)
    return [port for port in candidates if is_free(port, "0.0.0.0")][:count]


class ControlPlane:
    """Kubernetes' control plane with its state in ``folder``; ``stop`` forgets the objects."""

    def __init__(self, folder: Path, processes: Processes, network: Network) -> None:
        self.folder = folder
        self.network = network
        self.processes = processes
        self.programs = programs(CONTROL_PLANE)
        self.authority = Authority(folder / "pki")
        self._ports = self._kept_ports()
        self.kubeconfig = self.kubeconfig_for("admin", ADMIN, self.folder / "kubeconfig")

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.network.address}:{self._ports['api']}"

    def kubeconfig_for(self, name: str, subject: str, path: Path | None = None) -> Path:
        """A kubeconfig of a client with this certificate subject."""
        return self.authority.kubeconfig(path or self.folder / f"{name}.kubeconfig", self.server, name, subject)

    def start(self) -> None:
        """Start what does not run; returns when the default service account exists, which pods need."""
        self._start_etcd()
        self.start_api_server()
        self._start_controller_manager()

    def stop(self) -> None:
        """Stop everything."""
        self.processes.stop_all(("kube-controller-manager", "kube-apiserver", "etcd"))

    def stop_api_server(self, *, kill: bool = False) -> None:
        """Stop the API server alone: etcd keeps the objects. ``kill``: as a crash would."""
        if kill:
            self.processes.kill("kube-apiserver")
        else:
            self.processes.stop("kube-apiserver", 5)  # it waits for its watchers

    def start_api_server(self) -> None:
        """Start the API server unless it runs; returns when it is ready."""
        self.processes.start("kube-apiserver", self.programs["kube-apiserver"], *self._api_server_options())
        self.processes.wait_for("kube-apiserver", self.is_ready)

    def is_ready(self) -> bool:
        """True when the API server says so."""
        return self._answers("/readyz")

    def _answers(self, path: str) -> bool:
        certificate, key = self.authority.issue("admin", ADMIN)
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(certificate, key)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with contextlib.suppress(OSError), opener.open(self.server + path, timeout=5) as response:
            return bool(response.status == 200)
        return False

    def _kept_ports(self) -> dict[str, int]:
        """Chosen once, so that the parts find each other again after a restart."""
        kept = self.folder / "ports.json"
        if not kept.exists():
            kept.write_text(json.dumps(dict(zip(_LISTENERS, lasting_ports(len(_LISTENERS)), strict=True))))
        return dict(json.loads(kept.read_text()))

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{self._ports[name]}" for name in ("etcd", "etcd-peer"))
        self.processes.start(
            "etcd",
            self.programs["etcd"],
            *("--name=test", f"--data-dir={self.folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=test={peer}"),
        )

    def _api_server_options(self) -> list[str]:
        network, issue = self.network, self.authority.issue
        serving = issue(
            "apiserver",
            "/CN=kube-apiserver",
            *_NAMES,
            *(f"IP:{address}" for address in ("127.0.0.1", network.address, network.api_service)),
        )
        to_kubelet = issue("apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        front_proxy = issue("front-proxy", "/CN=front-proxy")
        authority, signing_key = self.authority.certificate, self.authority.service_account_key
        options = [
            *(f"--bind-address={network.address}", f"--advertise-address={network.address}"),
            *(f"--secure-port={self._ports['api']}", f"--etcd-servers=http://127.0.0.1:{self._ports['etcd']}"),
            *(f"--service-cluster-ip-range={network.services}.0/24", "--allow-privileged", "--profiling=false"),
            *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
            *(f"--client-ca-file={authority}", f"--kubelet-certificate-authority={authority}"),
            *(f"--tls-cert-file={serving[0]}", f"--tls-private-key-file={serving[1]}"),
            *(f"--kubelet-client-certificate={to_kubelet[0]}", f"--kubelet-client-key={to_kubelet[1]}"),
            *("--kubelet-preferred-address-types=InternalIP", f"--requestheader-client-ca-file={authority}"),
            *("--requestheader-allowed-names=front-proxy", "--requestheader-username-headers=X-Remote-User"),
            *("--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-"),
            *(f"--proxy-client-cert-file={front_proxy[0]}", f"--proxy-client-key-file={front_proxy[1]}"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            *(f"--service-account-key-file={signing_key}", f"--service-account-signing-key-file={signing_key}"),
        ]
        # An address of this machine that pods cannot reach must not become the endpoint of Service kubernetes.
        return options + (["--endpoint-reconciler-type=none"] if network.address.startswith("127.") else [])

    def _start_controller_manager(self) -> None:
        name = "kube-controller-manager"
        kubeconfig = self.kubeconfig_for(name, f"/CN=system:{name}")
        self.processes.start(
            name,
            self.programs[name],
            *(f"--{purpose}kubeconfig={kubeconfig}" for purpose in ("", "authentication-", "authorization-")),
            *("--bind-address=127.0.0.1", f"--secure-port={self._ports['controller-manager']}", "--profiling=false"),
            *("--leader-elect=false", "--use-service-account-credentials"),
            f"--service-account-private-key-file={self.authority.service_account_key}",
            f"--root-ca-file={self.authority.certificate}",
            f"--cluster-signing-cert-file={self.authority.certificate}",
            f"--cluster-signing-key-file={self.authority.folder / 'ca.key'}",
        )
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self.processes.wait_for(name, lambda: self._answers(account))
