"""Knative and KEDA come and go while the operator runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from support import operator_crds as crds
from support.operator_cluster import EDI, answer_as_knative, config_map, custom, database, edi, secret
from support.operator_process import OperatorProcess, grant, restricted_kubeconfig

Json = dict[str, Any]
PROCESSOR = "hospital-event-processor"
NOT_INSTALLED = "Knative serving or eventing not installed in cluster"


@pytest.fixture(autouse=True)
def neither(own_cluster: Kubectl) -> Iterator[None]:
    """Each test begins and ends without them."""
    _remove_all(own_cluster)
    yield
    _remove_all(own_cluster)


def _remove_all(kubectl: Kubectl) -> None:
    crds.remove(kubectl, crds.knative())
    crds.remove(kubectl, crds.keda())


@pytest.fixture
def namespace(own_cluster: Kubectl) -> Iterator[str]:
    """With the operator's rights, and what the EDI refers to."""
    name = own_cluster.new_namespace()
    grant(own_cluster, name, lease_namespace=name)
    own_cluster.apply(
        secret("db-secret", {"DB_USER": "u", "DB_PASS": "p"}), config_map("db-config", database()), namespace=name
    )
    yield name
    own_cluster.delete("namespace", name, wait=False)


@pytest.fixture
def operator(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator of the namespace, told of its resources by events alone."""
    kubeconfig = restricted_kubeconfig(control_plane)
    with OperatorProcess(tmp_path / "operator", kubeconfig, namespace, WATCH_NAMESPACE=namespace) as process:
        yield process
        assert process.is_running(), process.last_words()
        assert process.forbidden() == []


def _wait_for_message(kubectl: Kubectl, namespace: str, message: str) -> Json:
    return kubectl.wait_for(lambda it: it.get("status", {}).get("message") == message, EDI, "hospital", namespace)


@pytest.mark.usefixtures("operator")
def test_knative_appears_is_used_and_disappears(own_cluster: Kubectl, namespace: str) -> None:
    own_cluster.apply(edi(knative=True), namespace=namespace)
    resource = _wait_for_message(own_cluster, namespace, NOT_INSTALLED)
    assert resource["status"]["phase"] == "Failing"

    crds.install(own_cluster, crds.knative())
    own_cluster.wait_for(bool, "brokers.eventing.knative.dev", "hospital-broker", namespace)
    answer_as_knative(own_cluster, namespace)  # the event processor waits for the Broker's address
    own_cluster.wait_for(bool, "services.serving.knative.dev", PROCESSOR, namespace)
    own_cluster.wait_for(bool, "triggers.eventing.knative.dev", "hospital-image-stored", namespace)
    own_cluster.wait_for(bool, "sinkbindings.sources.knative.dev", f"{PROCESSOR}-sink-binding", namespace)
    assert own_cluster.get("deployment", PROCESSOR, namespace) is None

    # Drift of Knative's objects is repaired like that of others.
    own_cluster.delete("triggers.eventing.knative.dev", "hospital-image-stored", namespace)
    own_cluster.wait_for(bool, "triggers.eventing.knative.dev", "hospital-image-stored", namespace)

    crds.remove(own_cluster, crds.knative())
    _wait_for_message(own_cluster, namespace, NOT_INSTALLED)

    own_cluster.patch(EDI, "hospital", {"spec": {"knative": False}}, namespace)
    own_cluster.wait_for(bool, "deployment", PROCESSOR, namespace)


@pytest.mark.usefixtures("operator")
def test_a_resource_moves_between_knative_and_plain(own_cluster: Kubectl, namespace: str) -> None:
    crds.install(own_cluster, crds.knative())
    own_cluster.apply(edi(knative=False), namespace=namespace)
    own_cluster.wait_for(bool, "deployment", PROCESSOR, namespace)
    own_cluster.patch(EDI, "hospital", {"spec": {"knative": True}}, namespace)
    own_cluster.wait_for(bool, "brokers.eventing.knative.dev", "hospital-broker", namespace)
    answer_as_knative(own_cluster, namespace)
    own_cluster.wait_for(bool, "services.serving.knative.dev", PROCESSOR, namespace)
    own_cluster.wait_gone("deployment", PROCESSOR, namespace)
    own_cluster.wait_gone("service", PROCESSOR, namespace)
    own_cluster.patch(EDI, "hospital", {"spec": {"knative": False}}, namespace)
    own_cluster.wait_for(bool, "deployment", PROCESSOR, namespace)
    own_cluster.wait_gone("services.serving.knative.dev", PROCESSOR, namespace)
    own_cluster.wait_gone("brokers.eventing.knative.dev", "hospital-broker", namespace)


@pytest.mark.usefixtures("operator")
def test_keda_appears_is_used_and_disappears(own_cluster: Kubectl, namespace: str) -> None:
    binding = custom(
        "DicomInstanceBinding",
        "forward",
        {
            "dicomEventDrivenIngestionName": "hospital",
            "bindingConfigName": "binding",
            "bindingSecretName": "binding",
            "instanceBinding": {"minReplicas": 1, "maxReplicas": 3},
        },
    )
    own_cluster.apply(
        edi(),
        config_map("binding", {"STOW_ENDPOINT": "http://pacs/studies"}),
        secret("binding", {}),
        binding,
        namespace=namespace,
    )
    name = "forward-instance-binding"
    own_cluster.wait_for(bool, "horizontalpodautoscaler", name, namespace)
    crds.install(own_cluster, crds.keda())
    own_cluster.wait_for(bool, "scaledobjects.keda.sh", name, namespace)
    own_cluster.wait_gone("horizontalpodautoscaler", name, namespace)
    crds.remove(own_cluster, crds.keda())
    own_cluster.wait_for(bool, "horizontalpodautoscaler", name, namespace)
