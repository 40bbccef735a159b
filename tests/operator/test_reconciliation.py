"""One operator at work on a real API server: made, changed, repaired, rolled out, removed."""

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl, until
from imaging_operator.builders.names import CHECKSUM
from support.operator_cluster import (
    DEPLOYMENT,
    PROXY,
    conditions,
    config_map,
    database,
    edi,
    made,
    notes,
    owned,
    proxy,
    run_pods,
    secret,
)
from support.operator_process import OperatorProcess, operator_of_the_whole_cluster

Json = dict[str, Any]


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator of the whole cluster; what it sees comes from events alone."""
    with operator_of_the_whole_cluster(control_plane, tmp_path_factory.mktemp("operator")) as process:
        yield process


@pytest.fixture
def namespace(own_cluster: Kubectl, operator: OperatorProcess) -> Iterator[str]:
    """A namespace that the operator watches."""
    name = own_cluster.new_namespace()
    yield name
    own_cluster.delete("namespace", name, wait=False)


def test_a_resource_is_made_and_becomes_ready(own_cluster: Kubectl, namespace: str) -> None:
    deployment = made(own_cluster, namespace)
    resource = own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
    assert resource["status"]["phase"] == "Initializing"
    assert resource["status"]["message"] == "One or more resources are not ready"
    assert resource["status"]["ready"] is False
    assert deployment["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "imaging-ingestion.alvearie.org/v1alpha1",
            "kind": "DimseProxy",
            "name": "px",
            "uid": resource["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]
    run_pods(own_cluster, namespace)
    resource = own_cluster.wait_for(lambda it: it["status"]["ready"], PROXY, "px", namespace)
    status = resource["status"]
    assert (status["phase"], status["message"]) == ("Reconciling", "All resource are ready")
    assert {name: each["status"] for name, each in conditions(resource).items()} == {
        "Ready": "True",
        "Reconciled": "True",
        "ReferencesResolved": "True",
    }
    assert status["observedGeneration"] == resource["metadata"]["generation"]
    assert status["secondaryResources"]["ConfigMap"] == ["px-proxy-config", "px-proxy-nats-config"]
    assert status["secondaryResources"]["Deployment"] == [DEPLOYMENT]
    until(lambda: ("AllReady", "All resource are ready") in notes(own_cluster, namespace, "px"))


def test_nothing_is_written_for_a_resource_that_does_not_change(
    own_cluster: Kubectl, namespace: str, operator: OperatorProcess
) -> None:
    made(own_cluster, namespace)
    run_pods(own_cluster, namespace)
    before = own_cluster.wait_for(lambda it: it["status"]["ready"], PROXY, "px", namespace)
    passes = operator.metric("imaging_operator_reconciliations_total", kind=PROXY)
    objects = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in owned(own_cluster, namespace)}
    # An event about a Secret of nobody changes nothing; one about a ConfigMap of the proxy makes it look again.
    own_cluster("annotate", "configmap", "px-proxy-config", "example.org/seen=yes", "-n", namespace)
    until(lambda: operator.metric("imaging_operator_reconciliations_total", kind=PROXY) > passes)
    until(lambda: operator.metric("imaging_operator_queue_depth") == 0)
    after = own_cluster.get(PROXY, "px", namespace)
    assert after is not None
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    again = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in owned(own_cluster, namespace)}
    assert {name for name, version in again.items() if version != objects[name]} == {"px-proxy-config"}


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({"targetDimseHost": "other"}, ("configmap", "px-proxy-nats-config", "data", "DIMSE_TARGET_HOST", "other")),
        ({"targetDimsePort": 105}, ("configmap", "px-proxy-nats-config", "data", "DIMSE_TARGET_PORT", "105")),
        ({"natsUrl": "n2:4222"}, ("configmap", "px-proxy-nats-config", "data", "DIMSE_NATS_URL", "n2:4222")),
        ({"natsSubjectChannel": "B"}, ("configmap", "px-proxy-nats-config", "data", "DIMSE_NATS_SUBJECT_CHANNEL", "B")),
        ({"natsSubjectRoot": "R"}, ("configmap", "px-proxy-nats-config", "data", "DIMSE_NATS_SUBJECT_ROOT", "R")),
        ({"proxy": {"replicas": 3}}, ("deployment", DEPLOYMENT, "spec", "replicas", 3)),
        ({"service": {"type": "NodePort"}}, ("service", DEPLOYMENT, "spec", "type", "NodePort")),
    ],
)
def test_a_changed_field_is_applied(
    own_cluster: Kubectl, namespace: str, change: Json, holds: tuple[str, str, str, str, Any]
) -> None:
    made(own_cluster, namespace)
    own_cluster.patch(PROXY, "px", {"spec": change}, namespace)
    kind, name, part, member, value = holds
    own_cluster.wait_for(lambda it: it[part].get(member) == value, kind, name, namespace)


def test_image_and_pull_policy_are_rolled_out(own_cluster: Kubectl, namespace: str) -> None:
    made(own_cluster, namespace)
    change = {"proxy": {"image": "other/imaging-ingestion:2"}, "imagePullPolicy": "Always"}
    own_cluster.patch(PROXY, "px", {"spec": change}, namespace)

    def container(it: Json) -> Json:
        return dict(it["spec"]["template"]["spec"]["containers"][0])

    deployment = own_cluster.wait_for(
        lambda it: container(it)["image"] == "other/imaging-ingestion:2", "deployment", DEPLOYMENT, namespace
    )
    assert container(deployment)["imagePullPolicy"] == "Always"


def test_an_autoscaler_begins_with_the_replicas_there_are(own_cluster: Kubectl, namespace: str) -> None:
    made(own_cluster, namespace, proxy={"replicas": 3})
    own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
    own_cluster.patch(PROXY, "px", {"spec": {"proxy": {"minReplicas": 2, "maxReplicas": 5}}}, namespace)
    own_cluster.wait_for(bool, "horizontalpodautoscaler", DEPLOYMENT, namespace)
    # The Deployment was applied before the autoscaler was made.
    deployment = own_cluster.get("deployment", DEPLOYMENT, namespace)
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 3
    own_cluster.patch("deployment", DEPLOYMENT, {"spec": {"replicas": 4}}, namespace)
    own_cluster.patch(PROXY, "px", {"spec": {"targetDimseHost": "other"}}, namespace)
    own_cluster.wait_for(
        lambda it: it["data"]["DIMSE_TARGET_HOST"] == "other", "configmap", "px-proxy-nats-config", namespace
    )
    observed = own_cluster.wait_for(
        lambda it: it["status"].get("observedGeneration") == it["metadata"]["generation"], PROXY, "px", namespace
    )
    deployment = own_cluster.get("deployment", DEPLOYMENT, namespace)
    assert observed
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 4


def test_what_is_no_longer_wanted_is_removed(own_cluster: Kubectl, namespace: str) -> None:
    made(own_cluster, namespace, proxy={"replicas": 2})
    own_cluster.wait_for(bool, "poddisruptionbudget", DEPLOYMENT, namespace)
    own_cluster.wait_for(bool, "networkpolicy", DEPLOYMENT, namespace)
    bystander = config_map("bystander", {"a": "b"})
    own_cluster.apply(bystander, namespace=namespace)
    own_cluster.patch(PROXY, "px", {"spec": {"proxy": {"replicas": 1}, "networkPolicy": False}}, namespace)
    own_cluster.wait_gone("poddisruptionbudget", DEPLOYMENT, namespace)
    own_cluster.wait_gone("networkpolicy", DEPLOYMENT, namespace)
    assert own_cluster.get("configmap", "bystander", namespace)


def test_missing_references_are_named_and_waited_for(own_cluster: Kubectl, namespace: str) -> None:
    own_cluster.apply(edi(), namespace=namespace)
    for message, appears in (
        ("Missing Database Secret", secret("db-secret", {"DB_USER": "u", "DB_PASS": "p"})),
        ("Missing Database Config", config_map("db-config", database())),
    ):
        resource = own_cluster.wait_for(
            lambda it, message=message: it.get("status", {}).get("message") == message,  # type: ignore[misc]
            "dicomeventdriveningestion",
            "hospital",
            namespace,
        )
        assert resource["status"]["phase"] == "Failing"
        assert conditions(resource)["ReferencesResolved"]["reason"] == "MissingReference"
        assert owned(own_cluster, namespace) == []
        own_cluster.apply(appears, namespace=namespace)
    own_cluster.wait_for(bool, "deployment", "hospital-event-processor", namespace)
    own_cluster.wait_for(
        lambda it: it["status"]["phase"] == "Initializing", "dicomeventdriveningestion", "hospital", namespace
    )
    assert ("MissingReference", "Missing Database Secret") in notes(own_cluster, namespace, "hospital")


def test_a_changed_secret_rolls_the_pods(own_cluster: Kubectl, namespace: str) -> None:
    own_cluster.apply(
        edi(),
        secret("db-secret", {"DB_USER": "u", "DB_PASS": "p"}),
        config_map("db-config", database()),
        namespace=namespace,
    )

    def checksum(it: Json) -> str:
        return str(it["spec"]["template"]["metadata"]["annotations"][CHECKSUM])

    name = "hospital-event-processor"
    deployment = own_cluster.wait_for(bool, "deployment", name, namespace)
    for change in (
        secret("db-secret", {"DB_USER": "u", "DB_PASS": "new"}),
        config_map("db-config", {**database(), "DATASOURCE_MAX_SIZE": "7"}),
    ):
        before = checksum(deployment)
        own_cluster.apply(change, namespace=namespace)
        deployment = own_cluster.wait_for(
            lambda it, before=before: checksum(it) != before,  # type: ignore[misc]
            "deployment",
            name,
            namespace,
        )


def test_a_changed_token_of_a_service_account_rolls_the_pods(own_cluster: Kubectl, namespace: str) -> None:
    token = secret("sa-token", {"more": "1"}) | {"type": "kubernetes.io/service-account-token"}
    token["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "default"}
    own_cluster.wait_for(bool, "serviceaccount", "default", namespace)
    own_cluster.apply(token, namespace=namespace)
    own_cluster.wait_for(lambda it: "token" in it["data"], "secret", "sa-token", namespace)

    def checksum(it: Json) -> str:
        return str(it["spec"]["template"]["metadata"]["annotations"][CHECKSUM])

    before = checksum(made(own_cluster, namespace, natsTokenSecret="sa-token"))
    own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
    own_cluster.patch("secret", "sa-token", {"data": {"more": "Mg=="}}, namespace)
    own_cluster.wait_for(lambda it: checksum(it) != before, "deployment", DEPLOYMENT, namespace)


@pytest.mark.parametrize(
    ("kind", "name", "edit", "path", "value"),
    [
        ("deployment", DEPLOYMENT, {"spec": {"replicas": 5}}, ("spec", "replicas"), 1),
        ("deployment", DEPLOYMENT, {"metadata": {"labels": {"app": None}}}, ("metadata", "labels", "app"), DEPLOYMENT),
        (
            "configmap",
            "px-proxy-nats-config",
            {"data": {"DIMSE_TARGET_HOST": "x"}},
            ("data", "DIMSE_TARGET_HOST"),
            "pacs",
        ),
        ("service", DEPLOYMENT, {"spec": {"selector": {"app": "x"}}}, ("spec", "selector", "app"), DEPLOYMENT),
    ],
)
def test_an_edited_object_is_repaired(
    own_cluster: Kubectl, namespace: str, kind: str, name: str, edit: Json, path: tuple[str, ...], value: Any
) -> None:
    made(own_cluster, namespace)
    own_cluster.wait_for(bool, kind, name, namespace)
    own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
    own_cluster.patch(kind, name, edit, namespace)

    def repaired(it: Json) -> bool:
        found: Any = it
        for step in path:
            found = found.get(step, {})
        return bool(found == value)

    own_cluster.wait_for(repaired, kind, name, namespace)


@pytest.mark.parametrize("label", ["app.kubernetes.io/managed-by", "imaging-ingestion.alvearie.org/owner"])
def test_the_labels_by_which_objects_are_found_are_repaired(own_cluster: Kubectl, namespace: str, label: str) -> None:
    deployment = made(own_cluster, namespace)
    own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
    own_cluster.patch("deployment", DEPLOYMENT, {"metadata": {"labels": {label: None}}}, namespace)
    own_cluster.wait_for(lambda it: label in it["metadata"]["labels"], "deployment", DEPLOYMENT, namespace)
    after = own_cluster.get("deployment", DEPLOYMENT, namespace)
    assert after is not None
    assert after["metadata"]["uid"] == deployment["metadata"]["uid"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("deployment", DEPLOYMENT),
        ("service", DEPLOYMENT),
        ("serviceaccount", DEPLOYMENT),
        ("networkpolicy", DEPLOYMENT),
        ("configmap", "px-proxy-config"),
        ("configmap", "px-proxy-nats-config"),
    ],
)
def test_a_deleted_object_is_made_again(own_cluster: Kubectl, namespace: str, kind: str, name: str) -> None:
    made(own_cluster, namespace)
    before = own_cluster.wait_for(bool, kind, name, namespace)["metadata"]["uid"]
    own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
    own_cluster.delete(kind, name, namespace, wait=False)
    own_cluster.wait_for(lambda it: it["metadata"]["uid"] != before, kind, name, namespace)


def test_what_a_user_may_edit_is_kept_and_rolls_the_pods(own_cluster: Kubectl, namespace: str) -> None:
    deployment = made(own_cluster, namespace)
    before = deployment["spec"]["template"]["metadata"]["annotations"][CHECKSUM]
    own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
    own_cluster.patch("configmap", "px-proxy-config", {"data": {"IMAGE_CUIDS": "Mine:1.2.3\n"}}, namespace)
    own_cluster.wait_for(
        lambda it: it["spec"]["template"]["metadata"]["annotations"][CHECKSUM] != before,
        "deployment",
        DEPLOYMENT,
        namespace,
    )
    kept = own_cluster.get("configmap", "px-proxy-config", namespace)
    assert kept is not None
    assert kept["data"]["IMAGE_CUIDS"] == "Mine:1.2.3\n"


def test_a_new_resource_is_rolled_out_once(own_cluster: Kubectl, namespace: str) -> None:
    made(own_cluster, namespace)
    run_pods(own_cluster, namespace)
    own_cluster.wait_for(lambda it: it["status"]["ready"], PROXY, "px", namespace)
    assert len(own_cluster.objects("replicasets", namespace)) == 1


def test_a_deleted_resource_takes_along_what_it_owns_and_nothing_else(own_cluster: Kubectl, namespace: str) -> None:
    made(own_cluster, namespace)
    own_cluster.apply(config_map("bystander", {"a": "b"}), secret("token", {"token": "x"}), namespace=namespace)
    own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
    own_cluster.delete(PROXY, "px", namespace)
    until(lambda: owned(own_cluster, namespace) == [], account=lambda: str(owned(own_cluster, namespace)))
    assert own_cluster.get("configmap", "bystander", namespace)
    assert own_cluster.get("secret", "token", namespace)
    until(lambda: any(reason == "Kept" for reason, _ in notes(own_cluster, namespace, "px")))
    said = dict(notes(own_cluster, namespace, "px"))["Kept"]
    assert "JetStream stream" in said
    assert "retention is Retain" in said


def test_objects_left_by_a_deleted_resource_are_taken_on_by_the_next(own_cluster: Kubectl, namespace: str) -> None:
    before = made(own_cluster, namespace)
    own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
    left = owned(own_cluster, namespace)
    own_cluster("delete", PROXY, "px", "--cascade=orphan", "-n", namespace)
    assert all(not each["metadata"].get("ownerReferences") for each in owned(own_cluster, namespace))
    own_cluster.apply(proxy(), namespace=namespace)
    resource = own_cluster.wait_for(
        lambda it: it.get("status", {}).get("phase") == "Initializing", PROXY, "px", namespace
    )
    again = owned(own_cluster, namespace)
    assert len(again) == len(left)
    assert {owner["uid"] for each in again for owner in each["metadata"]["ownerReferences"]} == {
        resource["metadata"]["uid"]
    }
    deployment = own_cluster.get("deployment", DEPLOYMENT, namespace)
    assert deployment is not None
    assert deployment["metadata"]["uid"] == before["metadata"]["uid"]


def test_somebody_elses_object_is_not_taken_over(own_cluster: Kubectl, namespace: str) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": DEPLOYMENT},
        "spec": {"ports": [{"port": 1}], "selector": {"app": "theirs"}},
    }
    own_cluster.apply(theirs, namespace=namespace)
    own_cluster.apply(proxy(), namespace=namespace)
    resource = own_cluster.wait_for(lambda it: it.get("status", {}).get("phase") == "Failing", PROXY, "px", namespace)
    assert resource["status"]["message"] == (
        f"Service {DEPLOYMENT} exists and was not made by the operator: delete it, or give this DimseProxy another name"
    )
    kept = own_cluster.get("service", DEPLOYMENT, namespace)
    assert kept is not None
    assert kept["spec"]["selector"] == {"app": "theirs"}


def test_a_permanent_error_is_not_tried_again_and_again(
    own_cluster: Kubectl, namespace: str, operator: OperatorProcess
) -> None:
    own_cluster.apply(proxy(natsUrl=""), namespace=namespace)
    resource = own_cluster.wait_for(lambda it: it.get("status", {}).get("phase") == "Failing", PROXY, "px", namespace)
    assert "natsUrl" in resource["status"]["message"]
    assert conditions(resource)["Reconciled"]["reason"] == "Wrong"
    wrong = operator.metric("imaging_operator_errors_total", kind=PROXY, reason="Wrong")
    # Another resource that waits is tried again and again meanwhile: time passes, and the wrong one is left alone.
    own_cluster.apply(proxy("other", natsTokenSecret="absent"), namespace=namespace)
    tried = operator.metric("imaging_operator_errors_total", kind=PROXY, reason="MissingReference")
    until(lambda: operator.metric("imaging_operator_errors_total", kind=PROXY, reason="MissingReference") >= tried + 3)
    assert operator.metric("imaging_operator_errors_total", kind=PROXY, reason="Wrong") == wrong
    own_cluster.patch(PROXY, "px", {"spec": {"natsUrl": "nats:4222"}}, namespace)
    own_cluster.wait_for(bool, "deployment", DEPLOYMENT, namespace)
