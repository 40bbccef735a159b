"""crds/, the chart's copy and the reference agree with the models, and the CRDs with the interface's tables."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from imaging_operator.specs import crd, reference
from imaging_operator.specs.resources import RESOURCES, Resource

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "imaging-ingestion" / "files" / "crds"
AGAIN = "run: make crds"
Json = dict[str, Any]

PULL = {"imagePullPolicy": "string", "imagePullSecrets": "array"}
NATS = {"natsUrl": "string", "natsSecure": "boolean", "natsSubjectRoot": "string", "natsTokenSecret": "string"}
BUCKET = {"bucketConfigName": "string", "bucketSecretName": "string"}
BINDING = {"bindingConfigName": "string", "bindingSecretName": "string"}
EDI = {"dicomEventDrivenIngestionName": "string"}
WORKLOAD = {"image": "string"}
SERVICE = {"image": "string", "concurrency": "int64", "minReplicas": "int32", "maxReplicas": "int32"}
# Sections 1.2 to 1.9 of the interface: plural, then each field with its type; a dict is an object.
INTERFACE: dict[str, tuple[str, Json]] = {
    "DicomEventDrivenIngestion": (
        "dicomeventdriveningestions",
        {
            "databaseConfigName": "string",
            "databaseSecretName": "string",
            "eventProcessor": SERVICE,
            "revisioningDelay": "integer",
        },
    ),
    "DicomwebIngestionService": (
        "dicomwebingestionservices",
        {**EDI, **BUCKET, "providerName": "string", "stowService": SERVICE, "wadoService": SERVICE},
    ),
    "DicomInstanceBinding": ("dicominstancebindings", {**EDI, **BINDING, "instanceBinding": SERVICE}),
    "DicomStudyBinding": ("dicomstudybindings", {**EDI, **BINDING, "studyBinding": SERVICE}),
    "DimseIngestionService": (
        "dimseingestionservices",
        {
            **EDI,
            **BUCKET,
            **NATS,
            "providerName": "string",
            "applicationEntityTitle": "string",
            "dimseService": WORKLOAD,
        },
    ),
    "DimseProxy": (
        "dimseproxies",
        {
            **NATS,
            "applicationEntityTitle": "string",
            "targetDimseHost": "string",
            "targetDimsePort": "integer",
            "natsSubjectChannel": "string",
            "proxy": WORKLOAD,
        },
    ),
    "DicomEventBridge": (
        "dicomeventbridges",
        {**EDI, **NATS, "role": "string", "edgeMailbox": "string", "eventBridge": WORKLOAD},
    ),
}
STATUS = {"phase": "string", "message": "string", "ready": "boolean", "secondaryResources": "object"}
OWN_STATUS = {
    "DicomEventDrivenIngestion": {"brokerEndpoint": "string"},
    "DicomwebIngestionService": {"wadoServiceInternalEndpoint": "string", "wadoServiceExternalEndpoint": "string"},
}


def ids(resource: Resource) -> str:
    return resource.kind


def version(resource: Resource) -> Json:
    return dict(crd.crd(resource)["spec"]["versions"][0])


def schema(resource: Resource) -> Json:
    return dict(version(resource)["schema"]["openAPIV3Schema"])


def nodes(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every schema inside of a schema."""
    yield path, node
    for name, member in node.get("properties", {}).items():
        yield from nodes(member, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in node:
            yield from nodes(node[name], f"{path}[]")


def kind_of_value(node: Json) -> str:
    return str(node.get("format", node["type"]))


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_the_file_is_what_the_models_give(resource: Resource) -> None:
    written = (ROOT / "crds" / f"{resource.plural}.yaml").read_bytes()
    assert written == crd.text(resource).encode(), AGAIN
    assert yaml.safe_load(written) == crd.crd(resource)


@pytest.mark.parametrize("folder", [ROOT / "crds", CHART], ids=["crds", "chart"])
def test_the_folder_holds_these_files_only(folder: Path) -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert found == {f"{resource.plural}.yaml": crd.text(resource) for resource in RESOURCES}, AGAIN


def test_the_reference_is_what_the_models_give() -> None:
    written = (ROOT / "docs" / "custom-resources.md").read_text(encoding="utf-8")
    assert written == reference.render(), AGAIN


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    crd.write(tmp_path / "a")
    crd.write(tmp_path / "b")
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab")
    assert first == second
    assert len(first) == 7


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_names_are_those_of_the_interface(resource: Resource) -> None:
    whole = crd.crd(resource)
    assert whole["metadata"]["name"] == f"{INTERFACE[resource.kind][0]}.imaging-ingestion.alvearie.org"
    assert whole["spec"]["scope"] == "Namespaced"
    names = whole["spec"]["names"]
    assert (names["kind"], names["listKind"]) == (resource.kind, f"{resource.kind}List")
    assert (names["plural"], names["singular"]) == (INTERFACE[resource.kind][0], resource.kind.lower())
    assert names["categories"] == ["imaging"]
    assert [(each["name"], each["served"], each["storage"]) for each in whole["spec"]["versions"]] == [
        ("v1alpha1", True, True)
    ]


def test_short_names_are_distinct() -> None:
    assert len({resource.short_name for resource in RESOURCES}) == 7


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_every_field_of_the_interface_has_its_name_and_type(resource: Resource) -> None:
    members = schema(resource)["properties"]["spec"]["properties"]
    for name, expected in {**INTERFACE[resource.kind][1], **PULL}.items():
        if isinstance(expected, dict):
            assert {inner: kind_of_value(members[name]["properties"][inner]) for inner in expected} == expected
        else:
            assert kind_of_value(members[name]) == expected, name
    assert members["imagePullSecrets"]["items"]["properties"]["name"]["type"] == "string"


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_the_status_has_the_fields_of_the_interface_and_conditions(resource: Resource) -> None:
    status = schema(resource)["properties"]["status"]
    expected = STATUS | OWN_STATUS.get(resource.kind, {}) | {"observedGeneration": "int64", "conditions": "array"}
    assert {name: kind_of_value(status["properties"][name]) for name in expected} == expected
    assert status["required"] == ["message", "phase", "ready"]
    lists = status["properties"]["secondaryResources"]["additionalProperties"]
    assert (lists["type"], lists["items"]["type"]) == ("array", "string")
    condition = status["properties"]["conditions"]["items"]
    assert condition["required"] == ["lastTransitionTime", "message", "reason", "status", "type"]


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_the_schema_is_structural_and_described(resource: Resource) -> None:
    whole = schema(resource)
    for path, node in nodes(whole):
        assert not {"$ref", "$defs", "anyOf", "allOf", "oneOf", "title", "nullable"} & node.keys(), path
        assert node.get("x-kubernetes-int-or-string") or node["type"] in (
            "object",
            "array",
            "string",
            "integer",
            "boolean",
        ), path
        assert node.get("default", 1) is not None, path
        if path and not path.endswith("[]") and path != ".metadata":
            assert len(node["description"]) > 5, path
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"], path


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_rules_speak_of_fields_that_exist(resource: Resource) -> None:
    for path, node in nodes(schema(resource)["properties"]["spec"]):
        for rule in node.get("x-kubernetes-validations", []):
            named = set(re.findall(r"self\.([A-Za-z]+)", rule["rule"]))
            assert named, path
            assert named <= node["properties"].keys(), path


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_columns_and_scale_point_at_fields_that_exist(resource: Resource) -> None:
    given = version(resource)
    columns = given["additionalPrinterColumns"]
    assert [column["name"] for column in columns][:2] == ["Ready", "Phase"]
    assert columns[-1]["name"] == "Age"
    scale = given["subresources"].get("scale", {})
    assert given["subresources"]["status"] == {}
    for path in [column["jsonPath"] for column in columns[:-1]] + list(scale.values()):
        node = schema(resource)
        for name in path.strip(".").split("."):
            node = node["properties"][name]
        assert node["type"] in ("string", "boolean", "integer"), path
