"""What must exist first: the documented messages, and how a DIMSE ingestion finds its DICOMweb service."""

import copy
from collections.abc import Callable

import pytest

from imaging_operator.errors import MissingReference
from imaging_operator.kinds import KINDS
from imaging_operator.kinds.common import Json
from support.operator_kinds import case, wanted


def build_without(name: str, kind: str, named: str = "") -> None:
    """Build a case whose references lack an object."""
    it = case(name)
    resource, *others = it.documents()
    left = [each for each in others if each["kind"] != kind or (named and each["metadata"]["name"] != named)]
    assert len(left) < len(others)
    KINDS[resource["kind"]].build(wanted(resource, left, it.features), it.settings)


@pytest.mark.parametrize(
    ("name", "kind", "named", "message"),
    [
        ("plain/event-driven-ingestion", "Secret", "", "Missing Database Secret"),
        ("plain/event-driven-ingestion", "ConfigMap", "", "Missing Database Config"),
        ("plain/dicomweb-ingestion-service", "Secret", "", "Missing Bucket Secret"),
        ("plain/dicomweb-ingestion-service", "ConfigMap", "", "Missing Bucket Config"),
        (
            "plain/dicomweb-ingestion-service",
            "DicomEventDrivenIngestion",
            "",
            "Error getting DicomEventDrivenIngestion",
        ),
        ("plain/instance-binding-stow", "Secret", "", "Missing Instance Binding Secret"),
        ("plain/instance-binding-stow", "ConfigMap", "", "Missing Instance Binding Config"),
        ("plain/instance-binding-stow", "DicomEventDrivenIngestion", "", "Error getting DicomEventDrivenIngestion"),
        ("plain/study-binding", "Secret", "", "Missing Study Binding Secret"),
        ("plain/study-binding", "ConfigMap", "fhir-config", "Missing Study Binding Config"),
        ("plain/study-binding", "ConfigMap", "fhir-ca", "Missing Target CA Config"),
        ("plain/study-binding", "DicomEventDrivenIngestion", "", "Error getting DicomEventDrivenIngestion"),
        ("plain/dimse-ingestion-service", "Secret", "north-bucket", "Missing Bucket Secret"),
        ("plain/dimse-ingestion-service", "ConfigMap", "", "Missing Bucket Config"),
        ("plain/dimse-ingestion-service", "Secret", "nats-token", "Missing NATS Token Secret"),
        (
            "plain/dimse-ingestion-service",
            "DicomwebIngestionService",
            "",
            "Missing DicomwebIngestionService with provider name: north",
        ),
        ("plain/dimse-ingestion-service", "DicomEventDrivenIngestion", "", "Error getting DicomEventDrivenIngestion"),
        ("plain/dimse-proxy-all-fields", "Secret", "nats-token", "Missing NATS Token Secret"),
        ("plain/dimse-proxy-all-fields", "Secret", "nats-ca", "Missing NATS CA Secret"),
        ("plain/event-bridge-edge", "Secret", "wan-token", "Missing NATS Token Secret"),
        ("plain/event-bridge-hub", "DicomEventDrivenIngestion", "", "Error getting DicomEventDrivenIngestion"),
        ("plain/event-bridge-edge", "Secret", "nats-token", "Missing NATS Token Secret"),
        ("plain/event-bridge-edge", "ConfigMap", "nats-ca", "Missing NATS CA Config"),
        ("plain/dicomweb-ingestion-service-all-fields", "ConfigMap", "overrides", "Missing Service Config"),
        ("plain/dicomweb-ingestion-service-all-fields", "ConfigMap", "storage-ca", "Missing Bucket CA Config"),
        ("plain/event-driven-ingestion-all-fields", "Secret", "db-client", "Missing Database TLS Secret"),
    ],
)
def test_what_is_missing_is_said(name: str, kind: str, named: str, message: str) -> None:
    with pytest.raises(MissingReference) as raised:
        build_without(name, kind, named)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("DicomEventDrivenIngestion", "Missing Database Secret"),
        ("DicomwebIngestionService", "Missing Bucket Secret"),
        ("DicomInstanceBinding", "Missing Instance Binding Secret"),
        ("DicomStudyBinding", "Missing Study Binding Secret"),
        ("DimseIngestionService", "Missing Bucket Secret"),
    ],
)
def test_a_name_that_the_spec_leaves_out_is_missing(kind: str, message: str) -> None:
    spec = {"dicomEventDrivenIngestionName": "core"}
    resource: Json = {"kind": kind, "metadata": {"name": "a", "namespace": "imaging"}, "spec": spec}
    with pytest.raises(MissingReference, match=message):
        wanted(resource)


def change_web(change: Callable[[Json], None]) -> list[Json]:
    """The DIMSE ingestion's documents with another DICOMweb service."""
    documents = copy.deepcopy(case("plain/dimse-ingestion-service").documents())
    for each in documents:
        if each["kind"] == "DicomwebIngestionService":
            change(each)
    return documents


@pytest.mark.parametrize(
    "change",
    [
        lambda web: web["spec"].update(providerName="south"),
        lambda web: web["spec"].pop("providerName"),
        lambda web: web["spec"].update(dicomEventDrivenIngestionName="other"),
        lambda web: web["status"].pop("wadoServiceExternalEndpoint"),
        lambda web: web["status"].update(wadoServiceInternalEndpoint=""),
        lambda web: web.pop("status"),
    ],
)
def test_the_dicomweb_service_has_to_be_of_the_same_provider_and_ready_to_be_named(
    change: Callable[[Json], None],
) -> None:
    it = case("plain/dimse-ingestion-service")
    resource, *others = change_web(change)
    with pytest.raises(MissingReference, match="Missing DicomwebIngestionService with provider name: north"):
        KINDS[resource["kind"]].build(wanted(resource, others), it.settings)


def test_without_a_provider_name_the_dicomweb_service_without_one_is_meant() -> None:
    resource, *others = change_web(lambda web: web["spec"].pop("providerName"))
    del resource["spec"]["providerName"]
    objects = KINDS[resource["kind"]].build(wanted(resource, others), case("plain/dimse-ingestion-service").settings)
    (deployment,) = [each for each in objects if each["kind"] == "Deployment"]
    env = {each["name"]: each.get("value") for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["PROVIDER_NAME"] == "default"


def test_the_names_of_the_edis_own_references_follow_from_it() -> None:
    it = case("plain/event-bridge-edge")
    found = it.wanted().found
    assert found["events_token"]["metadata"]["name"] == "nats-token"
    assert found["events_ca_config"]["metadata"]["name"] == "nats-ca"
    assert found["token"]["metadata"]["name"] == "wan-token"
    assert "events_ca" not in found


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("plain/event-driven-ingestion-all-fields", "nats-token"),
        ("plain/dimse-ingestion-service", "nats-token"),
        ("plain/dimse-proxy-all-fields", "nats-token"),
        ("plain/event-bridge-edge", "wan-token"),
        ("plain/event-bridge-edge", "nats-token"),
    ],
)
def test_a_token_secret_without_a_token_is_said(name: str, secret: str) -> None:
    it = case(name)
    resource, *others = it.documents()
    for each in others:
        if each["metadata"]["name"] == secret:
            del each["data"]
    with pytest.raises(MissingReference, match=f"Secret {secret} has no key token"):
        KINDS[resource["kind"]].build(wanted(resource, others), it.settings)
