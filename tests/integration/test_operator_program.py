"""The operator's program without a cluster: wrong settings, a server that is away, signals, ports."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster.kubectl import until
from support.operator_process import OperatorProcess


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    inherited = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "imaging_operator"],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """Of a server that nobody runs."""
    path = tmp_path / "kubeconfig"
    content = {
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "x", "user": {"token": "do-not-log-me"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_without_a_cluster_it_says_what_to_set(tmp_path: Path) -> None:
    done = run(HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.strip() == "no cluster: set KUBECONFIG, or run in a pod with a service account's token"


def test_every_wrong_setting_is_named(tmp_path: Path) -> None:
    done = run(HOME=str(tmp_path), RESYNC_SECONDS="soon", WATCH_NAMESPACE="a,,b")
    assert done.returncode == 1
    assert "RESYNC_SECONDS: " in done.stderr
    assert "WATCH_NAMESPACE: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said_in_a_sentence(kubeconfig: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(KUBECONFIG=str(kubeconfig), HEALTH_HOST="127.0.0.1", HEALTH_PORT=port, METRICS_PORT="0")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_waits_for_an_api_server_and_ends_when_told(kubeconfig: Path, tmp_path: Path) -> None:
    operator = OperatorProcess(tmp_path / "operator", kubeconfig, "default")
    operator.begin()
    try:
        until(operator.is_alive, account=operator.last_words)
        until(lambda: "waiting for the API server" in operator.log.read_text(), account=operator.last_words)
        assert not operator.is_ready()
        assert operator.metric("imaging_operator_leader") == 0
        assert operator.metric("imaging_operator_api_requests_total", code="none") > 0
        assert operator.stop() == 0
        assert "do-not-log-me" not in operator.log.read_text()
        assert all(event["event"] for event in operator.events())
    finally:
        operator.kill()
