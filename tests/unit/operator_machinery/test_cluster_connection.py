"""Where the API server is: kubeconfig, pod, home."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from imaging_operator.connection import Connection, load_connection
from imaging_operator.errors import Wrong

TLS = Path(__file__).parents[2] / "data" / "tls"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def kubeconfig(path: Path, name: str = "one", *, current: str | None = None, **user: Any) -> Path:
    content: dict[str, Any] = {
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}:6443/"}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}}],
    }
    if current:
        content["current-context"] = current
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_kubeconfig_that_is_named_is_used(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", current="one", token="secret-token")
    found = load_connection({"KUBECONFIG": str(path)})
    assert (found.server, found.namespace, found.current_token()) == ("https://one:6443", "ns-one", "secret-token")
    assert "secret-token" not in repr(found)


def test_of_several_files_the_first_says_the_context(tmp_path: Path) -> None:
    first = kubeconfig(tmp_path / "a", "one", current="two", token="1")
    second = kubeconfig(tmp_path / "b", "two", current="one", token="2")
    found = load_connection({"KUBECONFIG": f"{first}:{second}"})
    assert (found.server, found.token) == ("https://two:6443", "2")


def test_material_may_be_inline_or_a_file_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("key")
    (tmp_path / "token").write_text("from file\n")
    path = kubeconfig(
        tmp_path / "config",
        current="one",
        **{
            "client-certificate-data": base64.b64encode(CERTIFICATE.encode()).decode(),
            "client-key": "key.pem",
            "tokenFile": "token",
        },
    )
    found = load_connection({"KUBECONFIG": str(path)})
    assert (found.certificate, found.key) == (CERTIFICATE.encode(), b"key")
    assert found.current_token() == "from file"


@pytest.mark.parametrize("plugin", ["exec", "auth-provider"])
def test_plugins_are_refused_with_a_way_out(tmp_path: Path, plugin: str) -> None:
    path = kubeconfig(tmp_path / "config", current="one", **{plugin: {"command": "x"}})
    with pytest.raises(Wrong, match="kubectl create token"):
        load_connection({"KUBECONFIG": str(path)})


@pytest.mark.parametrize("current", [None, "absent"])
def test_a_context_that_is_not_there_is_named(tmp_path: Path, current: str | None) -> None:
    with pytest.raises(Wrong, match="current-context"):
        load_connection({"KUBECONFIG": str(kubeconfig(tmp_path / "config", current=current, token="x"))})


@pytest.mark.parametrize("text", ["{unclosed", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Wrong, match="config"):
        load_connection({"KUBECONFIG": str(path)})


@pytest.mark.parametrize(
    ("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_in_a_pod_the_service_account_is_used(tmp_path: Path, host: str, server: str) -> None:
    for name, text in (("token", "one"), ("namespace", "imaging\n"), ("ca.crt", CERTIFICATE)):
        (tmp_path / name).write_text(text)
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    found = load_connection(environment, account=tmp_path)
    assert (found.server, found.namespace, found.authorities) == (server, "imaging", CERTIFICATE)
    (tmp_path / "token").write_text("two")
    assert found.current_token() == "two"


def test_nothing_at_all_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Wrong, match="KUBECONFIG"):
        load_connection({}, account=tmp_path)


def test_certificates_are_not_verified_only_when_asked() -> None:
    assert Connection("https://x").ssl_context().check_hostname
    assert not Connection("https://x", insecure=True).ssl_context().check_hostname
