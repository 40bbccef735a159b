"""Where the API server is and how the operator proves who it is: by a kubeconfig, or as a pod."""

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from imaging_operator.errors import Wrong

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NO_CLUSTER = "no cluster: set KUBECONFIG, or run in a pod with a service account's token"


@dataclass(frozen=True, slots=True)
class Connection:
    """An API server and credentials; secrets are not shown."""

    server: str
    namespace: str = "default"
    authorities: str | None = None
    """PEM certificates to trust; None trusts the system's."""
    insecure: bool = False
    certificate: bytes | None = None
    """PEM client certificate."""
    key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    """Read anew for every use: the kubelet replaces it every hour."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def current_token(self) -> str | None:
        """The bearer token as it is now."""
        return self.token_file.read_text().strip() if self.token_file else self.token

    def ssl_context(self) -> ssl.SSLContext:
        """TLS as these credentials want it."""
        context = ssl.create_default_context(cadata=self.authorities)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate and self.key:
            with tempfile.NamedTemporaryFile() as file:  # ssl takes a file only; mode 0600, and gone at once
                file.write(self.certificate + b"\n" + self.key)
                file.flush()
                context.load_cert_chain(file.name)
        return context


def load_connection(environment: Mapping[str, str] = os.environ, account: Path = SERVICE_ACCOUNT) -> Connection:
    """What ``KUBECONFIG`` says, else the pod's service account, else ``~/.kube/config``. Raises ``Wrong``."""
    if named := environment.get("KUBECONFIG"):
        return _from_kubeconfig([Path(path).expanduser() for path in named.split(os.pathsep) if path])
    if (account / "token").exists() and environment.get("KUBERNETES_SERVICE_HOST"):
        return _from_service_account(environment, account)
    home = Path("~/.kube/config").expanduser()
    if home.exists():
        return _from_kubeconfig([home])
    raise Wrong(_NO_CLUSTER)


def _from_service_account(environment: Mapping[str, str], account: Path) -> Connection:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=(account / "namespace").read_text().strip(),
        authorities=(account / "ca.crt").read_text(),
        token_file=account / "token",
    )


def _from_kubeconfig(paths: list[Path]) -> Connection:
    """The current context; of entries with the same name the first file's counts, as for kubectl."""
    clusters, users, contexts = ({}, {}, {})  # type: tuple[_Entries, _Entries, _Entries]
    current = ""
    for path in reversed(paths):
        content = _parsed(path)
        current = content.get("current-context") or current
        for entries, plural, singular in (
            (clusters, "clusters", "cluster"),
            (users, "users", "user"),
            (contexts, "contexts", "context"),
        ):
            found = {each["name"]: each.get(singular) or {} for each in content.get(plural) or []}
            entries.update({name: (each, path.parent) for name, each in found.items()})
    try:
        context, _ = contexts[current]
        return _connection(context, clusters[context["cluster"]], users[context["user"]])
    except KeyError as error:
        raise Wrong(f"kubeconfig: nothing is called {error} there; current-context is '{current}'") from None


_Entries = dict[str, tuple[dict[str, Any], Path]]


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise Wrong(f"cannot read kubeconfig {path}: {error}") from None
    return content if isinstance(content, dict) else {}


def _connection(
    context: dict[str, Any], cluster: tuple[dict[str, Any], Path], user: tuple[dict[str, Any], Path]
) -> Connection:
    if plugin := next((name for name in ("exec", "auth-provider") if user[0].get(name)), None):
        raise Wrong(f"kubeconfig: users with '{plugin}' are not supported; use a token: kubectl create token")
    authorities = _material(*cluster, "certificate-authority")
    token_file = user[0].get("tokenFile")
    return Connection(
        server=str(cluster[0]["server"]).rstrip("/"),
        namespace=context.get("namespace") or "default",
        authorities=authorities.decode() if authorities else None,
        insecure=bool(cluster[0].get("insecure-skip-tls-verify")),
        certificate=_material(*user, "client-certificate"),
        key=_material(*user, "client-key"),
        token=user[0].get("token"),
        token_file=user[1] / token_file if token_file else None,
        user=user[0].get("username"),
        password=user[0].get("password"),
    )


def _material(entry: dict[str, Any], folder: Path, name: str) -> bytes | None:
    """``<name>-data`` in base64, or the file that ``<name>`` names, relative to the kubeconfig."""
    if inline := entry.get(f"{name}-data"):
        return base64.b64decode(inline)
    return (folder / entry[name]).read_bytes() if entry.get(name) else None
