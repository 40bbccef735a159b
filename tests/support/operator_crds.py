"""CustomResourceDefinitions of Knative and KEDA, as their Go modules have them. They are fetched once, and not kept
here: the Knative project's are long."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cluster.kubectl import Kubectl
from cluster.programs import go_command

Json = dict[str, Any]
_SERVING = ("knative.dev/serving@v0.42.2", ("config/core/300-resources/service.yaml",))
_EVENTING = (
    "knative.dev/eventing@v0.46.0",
    tuple(f"config/core/resources/{name}.yaml" for name in ("broker", "trigger", "sinkbindings")),
)
_KEDA = ("github.com/kedacore/keda/v2@v2.17.2", ("config/crd/bases/keda.sh_scaledobjects.yaml",))


@cache
def knative() -> tuple[Json, ...]:
    """Service of Serving; Broker, Trigger and SinkBinding of Eventing."""
    return (*_definitions(*_SERVING), *_definitions(*_EVENTING))


@cache
def keda() -> tuple[Json, ...]:
    """ScaledObject."""
    return _definitions(*_KEDA)


def install(kubectl: Kubectl, definitions: tuple[Json, ...]) -> None:
    """Apply them and wait until they are served."""
    kubectl.apply(*definitions)
    names = [f"crd/{each['metadata']['name']}" for each in definitions]
    kubectl("wait", "--for=condition=Established", *names, "--timeout=60s")


def remove(kubectl: Kubectl, definitions: tuple[Json, ...]) -> None:
    """Delete them, and with them all their objects."""
    for each in definitions:
        kubectl.delete("crd", each["metadata"]["name"])


def _definitions(module: str, paths: tuple[str, ...]) -> tuple[Json, ...]:
    done = subprocess.run(
        [*go_command(), "mod", "download", "-json", module], cwd="/", capture_output=True, check=True, timeout=300
    )
    folder = Path(json.loads(done.stdout)["Dir"])
    documents = [each for path in paths for each in yaml.safe_load_all((folder / path).read_text()) if each]
    return tuple(map(_without_webhook, documents))


def _without_webhook(definition: Json) -> Json:
    """No controller of theirs runs here that could convert between versions."""
    spec = {key: value for key, value in definition["spec"].items() if key != "conversion"}
    metadata = {"name": definition["metadata"]["name"]}
    return {"apiVersion": definition["apiVersion"], "kind": definition["kind"], "metadata": metadata, "spec": spec}
