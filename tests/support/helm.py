"""Helm for tests: the chart rendered and installed, with Helm's own state in a folder of the test."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.programs import programs, version

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "imaging-ingestion"
KUBERNETES = version("k8s.io/kubernetes")


class HelmError(Exception):
    """Helm said no; the message is what it said."""


class Helm:
    """``helm`` with a home of its own and, where one is given, a cluster."""

    def __init__(self, home: Path, kubeconfig: Path | None = None) -> None:
        folders = {name: str(home / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
        cluster = {"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}
        self._environment = {**os.environ, **folders, **cluster}
        self._program = programs(["helm"])["helm"]

    def __call__(self, *arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
        """Standard output; raises ``HelmError`` with what it wrote to standard error."""
        given = ["--values", "-"] if values is not None else []
        done = subprocess.run(
            [self._program, *map(str, arguments), *given],
            input=yaml.safe_dump(dict(values)) if values is not None else None,
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise HelmError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def render(self, values: Mapping[str, Any], *, release: str = "imaging", namespace: str = "imaging") -> list[Any]:
        """The objects of a release, hooks included, without asking a cluster."""
        where = ["--namespace", namespace, "--kube-version", KUBERNETES]
        text = self("template", release, CHART, *where, values=values)
        return [document for document in yaml.safe_load_all(text) if document]
