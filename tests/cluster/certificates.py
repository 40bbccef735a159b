"""Keys, certificates and kubeconfigs of a cluster of its own: made anew with each cluster, never kept."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A certificate authority with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.certificate.exists():
            _openssl(
                *("req", "-x509", *_KEY, "-days", "30", "-subj", "/CN=imaging-test-ca"),
                *("-keyout", folder / "ca.key", "-out", self.certificate),
            )
        if not self.service_account_key.exists():
            _openssl("genrsa", "-out", self.service_account_key, "2048")

    @property
    def certificate(self) -> Path:
        """The authority's own certificate."""
        return self.folder / "ca.crt"

    @property
    def service_account_key(self) -> Path:
        """The key that signs service accounts' tokens."""
        return self.folder / "service-accounts.key"

    def issue(self, name: str, subject: str, *alternative_names: str) -> tuple[Path, Path]:
        """Certificate and key for both sides of TLS; kept ones are returned as they are."""
        certificate, key, request = (self.folder / f"{name}.{suffix}" for suffix in ("crt", "key", "csr"))
        if not certificate.exists():
            _openssl("req", "-new", *_KEY, "-keyout", key, "-subj", subject, "-out", request)
            extensions = ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature"]
            extensions += ["extendedKeyUsage=clientAuth,serverAuth"]
            extensions += ["subjectAltName=" + ",".join(alternative_names)] if alternative_names else []
            options = self.folder / f"{name}.ext"
            options.write_text("\n".join(extensions))
            _openssl(
                *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.folder / "ca.key"),
                *("-CAcreateserial", "-days", "30", "-extfile", options, "-out", certificate),
            )
        return certificate, key

    def kubeconfig(self, path: Path, server: str, name: str, subject: str) -> Path:
        """A kubeconfig (JSON, which is YAML) for the one who holds this certificate."""
        certificate, key = self.issue(name, subject)
        user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        content: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "imaging-test",
            "clusters": [
                _named("cluster", {"server": server, "certificate-authority-data": _base64(self.certificate)})
            ],
            "users": [_named("user", user)],
            "contexts": [_named("context", {"cluster": "imaging-test", "user": "imaging-test"})],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(content, indent=1))
        return path


def _named(what: str, content: dict[str, str]) -> dict[str, Any]:
    return {"name": "imaging-test", what: content}


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=True, timeout=60)
