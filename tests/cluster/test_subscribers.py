"""Subscribers that speak something else than webhooks: FHIR, from examples/kubernetes/fhir-binding.yaml."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.images import IMAGE
from cluster.kubectl import Json, until
from cluster.modality import more_than, sending
from cluster.system import EXAMPLES, NAMESPACE, System

RECORDER = (Path(__file__).parent / "files" / "recorder.py").read_text()


@pytest.fixture
def fhir(system: System) -> Iterator[None]:
    """A FHIR server that writes down what it gets, and the example's binding to it."""
    objects = [*_server(), *_binding()]
    system.kubectl.apply(*objects, namespace=NAMESPACE)
    system.wait_ready()
    yield
    for each in reversed(objects):
        system.kubectl.delete(each["kind"], each["metadata"]["name"], NAMESPACE)


@pytest.mark.usefixtures("fhir")
def test_a_study_becomes_one_fhir_imaging_study(system: System) -> None:
    with sending(1, system.dicom) as (modality,):
        until(more_than([modality], 5))
    assert modality.failures == []

    def written() -> list[Json]:
        log = system.kubectl("-n", NAMESPACE, "logs", "deployment/fhir-server")
        requests = [json.loads(line) for line in log.splitlines()]
        return [each for each in requests if modality.study in json.dumps(each["body"].get("identifier"))]

    until(lambda: any(_count(each) == len(modality.acknowledged) for each in written()), account=system.account)
    last = written()[-1]
    assert last["method"] == "PUT"
    assert modality.study in last["path"]
    assert last["body"]["resourceType"] == "ImagingStudy"
    assert last["body"]["numberOfSeries"] == 1
    assert last["headers"]["authorization"] == "Bearer change-me"


def _count(request: Json) -> int:
    return int(request["body"].get("numberOfInstances", 0))


def _binding() -> list[Json]:
    """The example, with our server in the place of example.org's."""
    objects: list[Json] = list(yaml.safe_load_all((EXAMPLES / "fhir-binding.yaml").read_text()))
    for each in objects:
        if each["kind"] == "ConfigMap":
            each["data"]["FHIR_ENDPOINT"] = "http://fhir-server/fhir/ImagingStudy"
    return sorted(objects, key=lambda each: each["kind"] == "DicomStudyBinding")


def _server() -> list[Json]:
    labels = {"app": "fhir-server"}
    container = {
        "name": "fhir",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", RECORDER],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "fhir-server"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "fhir-server"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    return [deployment, service]
