"""The chart's rules are enough, and no more than enough: the API server's audit log tells."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.control_plane import ControlPlane, Network
from cluster.kubectl import Kubectl, until
from cluster.processes import Processes
from imaging_operator.builders.names import MANAGED_BY
from imaging_operator.resources import OWNED
from support import operator_crds as crds
from support.operator_cluster import EDI, answer_as_knative, config_map, custom, database, edi, proxy, secret
from support.operator_process import RULES, USER, OperatorProcess, grant, restricted_kubeconfig

Json = dict[str, Any]
Right = tuple[str, str, str]
"""API group, resource and verb."""
NOBODY = "nats://127.0.0.1:9"
CRDS = Path(__file__).parents[2] / "crds"
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [USER]}, {"level": "None"}],
}


class AuditedControlPlane(ControlPlane):
    """Writes down every request of the operator."""

    @property
    def audit_log(self) -> Path:
        """One JSON object a line."""
        return self.folder / "audit.log"

    def _api_server_options(self) -> list[str]:
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(POLICY))
        options = [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
        return [*super()._api_server_options(), *options]


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[AuditedControlPlane]:
    """A control plane of this test's own."""
    plane = AuditedControlPlane(tmp_path / "plane", Processes(tmp_path / "plane" / "run", tied=True), Network())
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def test_the_rules_are_all_needed_and_all_that_is_needed(audited: AuditedControlPlane, tmp_path: Path) -> None:
    kubectl = Kubectl(audited.programs["kubectl"], audited.kubeconfig)
    kubectl("apply", "--server-side", "-f", CRDS)
    crds.install(kubectl, crds.knative())
    crds.install(kubectl, crds.keda())
    home = kubectl.new_namespace("operator")
    grant(kubectl, lease_namespace=home)
    kubeconfig = restricted_kubeconfig(audited)
    options = {"DISCOVERY_SECONDS": "1", "STREAM_REMOVAL_SECONDS": "1"}
    with OperatorProcess(tmp_path / "operator", kubeconfig, home, **options) as operator:
        _use_everything(kubectl)
        assert operator.forbidden() == []
        assert operator.stop() == 0
    requests = [json.loads(line) for line in audited.audit_log.read_text().splitlines()]
    refused = [each for each in requests if each["responseStatus"]["code"] in (401, 403)]
    # A namespace that is being removed refuses new objects to everybody.
    assert [each["requestURI"] for each in refused if not _is_ending(each)] == []
    used = {right for each in requests for right in _rights(each)}
    assert _granted() - used == set()
    assert {right for right in used if right[1] != "leases"} - _granted() == set()


def _use_everything(kubectl: Kubectl) -> None:
    """Everything that the operator ever makes is made, and then no longer wanted."""
    namespace = kubectl.new_namespace()
    for document in _references():
        kubectl.apply(document, namespace=namespace)
    for resource in _resources():
        kubectl.apply(resource, namespace=namespace)
        kind, name = resource["kind"], resource["metadata"]["name"]
        kubectl.wait_for(lambda it: it.get("status", {}).get("phase") == "Initializing", kind, name, namespace)

    def is_all_made() -> bool:
        answer_as_knative(kubectl, namespace)  # the event processor waits for the Broker's address
        return {each["kind"] for each in _made(kubectl, namespace)} == {each.kind for each in OWNED}

    until(is_all_made)
    for kind, name, change in _LESS:
        kubectl.patch(kind, name, {"spec": change}, namespace)
    gone = ("horizontalpodautoscalers", "scaledobjects.keda.sh", "ingresses", "brokers.eventing.knative.dev")
    for collection in gone:
        until(lambda collection=collection: kubectl.objects(collection, namespace) == [])  # type: ignore[misc]
    for resource in _resources():
        kubectl.delete(resource["kind"], resource["metadata"]["name"], namespace)
    until(lambda: _made(kubectl, namespace) == [])


def _resources() -> list[Json]:
    """One of each kind, and an EDI under Knative; three with the finalizer."""
    event = {"dicomEventDrivenIngestionName": "hospital"}
    bucket = {"bucketConfigName": "bucket", "bucketSecretName": "bucket", "providerName": "north"}
    nats = {"natsUrl": NOBODY, "retention": "Delete"}
    several = {"minReplicas": 1, "maxReplicas": 2}
    ingress = {"host": "dicom.example.org"}
    binding = {**event, "bindingConfigName": "binding", "bindingSecretName": "binding"}
    return [
        edi(**nats),
        edi("elastic", knative=True),
        custom("DicomwebIngestionService", "north", {**event, **bucket, "stowService": several, "ingress": ingress}),
        custom("DimseIngestionService", "north", {**event, **bucket, **nats}),
        custom("DicomInstanceBinding", "forward", {**binding, "instanceBinding": several}),
        custom("DicomStudyBinding", "fhir", binding),
        custom("DicomEventBridge", "hub", {**event, "role": "hub", "natsUrl": NOBODY}),
        proxy(**nats, proxy={"replicas": 2}),
    ]


_LESS = (
    ("DicomwebIngestionService", "north", {"stowService": {"maxReplicas": 0}, "ingress": None}),
    ("DicomInstanceBinding", "forward", {"instanceBinding": {"maxReplicas": 0}}),
    (EDI, "elastic", {"knative": False}),
)


def _references() -> list[Json]:
    bucket = {"BUCKET_HOST": "s3", "BUCKET_PORT": "80", "BUCKET_REGION": "us-east-1", "BUCKET_NAME": "north"}
    binding = {"STOW_ENDPOINT": "http://pacs/studies", "FHIR_ENDPOINT": "http://fhir/ImagingStudy"}
    return [
        secret("db-secret", {"DB_USER": "u", "DB_PASS": "p"}),
        config_map("db-config", database()),
        secret("bucket", {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}),
        config_map("bucket", bucket),
        secret("binding", {}),
        config_map("binding", binding),
    ]


def _made(kubectl: Kubectl, namespace: str) -> list[Json]:
    collections = ",".join(f"{each.plural}.{each.group}" if each.group else each.plural for each in OWNED)
    return kubectl.objects(collections, namespace, selector=f"app.kubernetes.io/managed-by={MANAGED_BY}")


def _rights(request: Json) -> Iterator[Right]:
    """What a request needs; an apply that creates needs ``create`` too."""
    reference = request.get("objectRef")
    if reference is None or "resource" not in reference:
        return
    subresource = reference.get("subresource")
    resource = f"{reference['resource']}/{subresource}" if subresource else reference["resource"]
    yield reference.get("apiGroup", ""), resource, request["verb"]
    if request["verb"] == "patch" and request["responseStatus"]["code"] == 201:
        yield reference.get("apiGroup", ""), resource, "create"


def _granted() -> set[Right]:
    return {
        (group, resource, verb)
        for rule in yaml.safe_load(RULES.read_text())
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _is_ending(request: Json) -> bool:
    return "being terminated" in request["responseStatus"].get("message", "")


def test_every_kind_that_builders_make_is_granted() -> None:
    granted = _granted()
    for resource in OWNED:
        assert {(resource.group, resource.plural, verb) for verb in ("create", "delete", "patch")} <= granted
