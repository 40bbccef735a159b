"""The objects that the kinds want, as they are written in ``tests/data/operator``, before a real API server.

Unknown fields, values out of bounds and pods that a namespace with the restricted Pod Security Standard would refuse
are errors; so are resources that the CRDs refuse.
"""

import json

import pytest

from cluster.kubectl import Kubectl
from support.operator_kinds import Case, cases

OPTIONAL = ("knative.dev", "keda.sh")
CASES = [pytest.param(each, id=each.name) for each in cases()]


@pytest.fixture(scope="module")
def restricted(cluster: Kubectl) -> str:
    """A namespace that warns of pods beyond the restricted standard; the dry runs leave nothing in it."""
    name = cluster.new_namespace("fit")
    cluster("label", "namespace", name, "pod-security.kubernetes.io/warn=restricted")
    return name


@pytest.mark.parametrize("it", CASES)
def test_the_api_server_takes_the_objects(cluster: Kubectl, restricted: str, it: Case) -> None:
    resource, *references = it.documents()
    objects = [each for each in it.expected() if not any(group in each["apiVersion"] for group in OPTIONAL)]
    moved = [_moved(each, restricted) for each in (resource, *references, *objects)]
    cluster(
        "apply",
        "--server-side",
        "--dry-run=server",
        "--validate=strict",
        "--warnings-as-errors",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": moved}),
    )


def _moved(document: dict[str, object], namespace: str) -> dict[str, object]:
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    return {**document, "metadata": {**metadata, "namespace": namespace}}
