"""Knative Serving and Eventing on the node of the tests: compiled here, loaded without a registry, applied, ready.

What differs from a release: images and their names, ``local-ingress`` in place of Kourier or Istio, no reserved
resources, no autoscaled or spare replicas and patient probes (the machine may be small and busy), shorter times until
pods without work are taken away, and only the parts that Broker, Trigger, SinkBinding and Knative Service need.
"""

import fcntl
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster.images import one_layer
from cluster.kind import Kind
from cluster.kubectl import Kubectl
from cluster.node import Node
from cluster.programs import CACHE
from knative.manifests import Json, documents
from knative.modules import PROGRAMS, build, program

DOMAIN = "knative.example"
"""Of the public URLs; nobody's DNS has it."""
PORT = 31080
"""Of the node, where local-ingress listens."""
NAMESPACES = ("knative-serving", "knative-eventing")
INGRESS = Path(__file__).parent / "files" / "local-ingress.yaml"
_USER = "65532"
_SCHEME = "ko://"
# Not applied: sources and sinks that no test uses; scaling and TLS that need servers which are not there.
_LEFT_OUT = {
    "Deployment": ("pingsource-mt-adapter", "job-sink"),
    "HorizontalPodAutoscaler": (),
    "PodDisruptionBudget": (),
    "Certificate": (),
}
_CONFIGURATION = {
    "config-network": {"ingress-class": "local.ingress.networking.knative.dev"},
    "config-domain": {DOMAIN: ""},
    "config-autoscaler": {"stable-window": "30s", "scale-to-zero-grace-period": "5s"},
}


def prepare() -> None:
    """Compile and pack what is missing, one session at a time; takes minutes the first time."""
    folder = CACHE / "knative"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build()
        for package in _packages():
            archive = _archive(package)
            if not archive.exists() or archive.stat().st_mtime < program(package).stat().st_mtime:
                _pack(package, archive)


def install(node: Node | Kind, kubectl: Kubectl) -> None:
    """Load the images and apply everything; returns when every controller is ready."""
    for package in _packages():
        node.load(_archive(package))
    found = [_changed(each) for each in _wanted()]
    definitions = [each for each in found if each["kind"] in ("CustomResourceDefinition", "Namespace")]
    kubectl.apply(*definitions)
    names = [each["metadata"]["name"] for each in definitions if each["kind"] == "CustomResourceDefinition"]
    kubectl("wait", "--for=condition=Established", "--timeout=100s", *(f"crd/{name}" for name in names))
    kubectl.apply(*(each for each in found if each not in definitions))
    for namespace in NAMESPACES:
        kubectl("rollout", "status", "deployment", "-n", namespace, "--timeout=580s", seconds=600)


def _wanted() -> Iterator[Json]:
    yield from yaml.safe_load_all(INGRESS.read_text())
    for each in documents():
        names = _LEFT_OUT.get(each["kind"])
        if names is None or (names and each["metadata"]["name"] not in names):
            yield each


def _changed(document: Json) -> Json:
    document = _with_images(document)
    if document["kind"] == "ConfigMap":
        document["data"] = document.get("data", {}) | _CONFIGURATION.get(document["metadata"]["name"], {})
    if document["kind"] == "Deployment":
        for container in document["spec"]["template"]["spec"]["containers"]:
            container.pop("resources", None)
            container.pop("livenessProbe", None)
            container["readinessProbe"]["timeoutSeconds"] = 10
    return document


def _with_images(value: Any) -> Any:
    """Every ``ko://`` and Go package, wherever it stands, as the name of our image."""
    if isinstance(value, dict):
        return {key: _with_images(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_images(each) for each in value]
    if isinstance(value, str) and value.startswith(_SCHEME):
        return _image(value.removeprefix(_SCHEME))
    return value


def _packages() -> list[str]:
    return [package for packages in PROGRAMS.values() for package in packages]


def _image(package: str) -> str:
    name = package.removeprefix("./cmd/").removeprefix("knative.dev/").replace("/cmd/", "/").replace("/", "-")
    return f"localhost/knative/{name}:test"


def _archive(package: str) -> Path:
    return CACHE / "knative" / "images" / f"{_image(package).rpartition('/')[2].partition(':')[0]}.tar"


def _pack(package: str, archive: Path) -> None:
    """An image of one program, run as a user without rights: Knative's pods refuse root."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    layer, partial = archive.with_suffix(".layer"), archive.with_suffix(".partial")
    with tarfile.open(layer, "w") as content:
        content.add(program(package), "program", filter=_for_everybody)
    one_layer(partial, _image(package), layer, {"Entrypoint": ["/program"], "User": _USER})
    layer.unlink()
    partial.rename(archive)


def _for_everybody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.mode = 0o755
    return entry
