"""Operators and API servers that stop, die and come back: no resource is left alone for long."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl, until
from support.freezing_proxy import FreezingProxy
from support.operator_cluster import PROXY, owned, proxy
from support.operator_process import OperatorProcess, grant, restricted_kubeconfig

Json = dict[str, Any]
DEPLOYMENT = "px-dimse-proxy"
A_MINUTE = 60.0
GRACE = 10.0
"""For a machine that does much else: the clock also counts kubectl's own time."""


@pytest.fixture
def namespace(own_cluster: Kubectl) -> Iterator[str]:
    """A namespace in which the operator has its rights, and its Lease."""
    name = own_cluster.new_namespace()
    grant(own_cluster, name, lease_namespace=name)
    yield name
    own_cluster.delete("namespace", name, wait=False)


@pytest.fixture
def kubeconfig(control_plane: ControlPlane) -> Path:
    """The operator's credentials."""
    return restricted_kubeconfig(control_plane)


def test_what_happened_while_the_operator_was_down_is_caught_up(
    own_cluster: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    with OperatorProcess(tmp_path / "one", kubeconfig, namespace, WATCH_NAMESPACE=namespace) as operator:
        own_cluster.apply(proxy(), proxy("gone"), namespace=namespace)
        own_cluster.wait_for(bool, "deployment", DEPLOYMENT, namespace)
        own_cluster.wait_for(bool, "deployment", "gone-dimse-proxy", namespace)
        operator.kill()
        own_cluster.patch(PROXY, "px", {"spec": {"targetDimseHost": "other"}}, namespace)
        own_cluster.delete("service", DEPLOYMENT, namespace)
        own_cluster.delete(PROXY, "gone", namespace)
        own_cluster.apply(proxy("new"), namespace=namespace)
        # The killed one did not give up its Lease: the next waits until that is silent.
        operator.start()
        own_cluster.wait_for(bool, "deployment", "new-dimse-proxy", namespace)
        own_cluster.wait_for(bool, "service", DEPLOYMENT, namespace)
        own_cluster.wait_for(
            lambda it: it["data"]["DIMSE_TARGET_HOST"] == "other", "configmap", "px-proxy-nats-config", namespace
        )
        own_cluster.wait_gone("deployment", "gone-dimse-proxy", namespace)
        assert operator.forbidden() == []


@pytest.mark.parametrize("kill", [False, True])
def test_an_api_server_that_restarts_leaves_nothing_alone_for_a_minute(
    control_plane: ControlPlane, own_cluster: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path, kill: bool
) -> None:
    with OperatorProcess(
        tmp_path / "one", kubeconfig, namespace, WATCH_NAMESPACE=namespace, RETRY_SECONDS="5", DISCOVERY_SECONDS="30"
    ) as operator:
        own_cluster.apply(proxy(), namespace=namespace)
        own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
        control_plane.stop_api_server(kill=kill)
        # Long enough that the lead is not confirmed and the operator pauses.
        until(lambda: not operator.leads())
        assert operator.is_alive()
        control_plane.start_api_server()
        back = time.monotonic()
        own_cluster.apply(proxy("new"), namespace=namespace)
        own_cluster.patch("deployment", DEPLOYMENT, {"spec": {"replicas": 4}}, namespace)
        own_cluster.wait_for(bool, "deployment", "new-dimse-proxy", namespace)
        own_cluster.wait_for(lambda it: it["spec"]["replicas"] == 1, "deployment", DEPLOYMENT, namespace)
        assert time.monotonic() - back < A_MINUTE
        assert operator.leads()
        # The watches are back too, not only the look at everything: an edit is repaired within seconds.
        own_cluster.patch("deployment", DEPLOYMENT, {"spec": {"replicas": 3}}, namespace)
        own_cluster.wait_for(lambda it: it["spec"]["replicas"] == 1, "deployment", DEPLOYMENT, namespace)
        assert operator.stop() == 0


def test_a_lost_event_is_made_up_for(own_cluster: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path) -> None:
    """Without the right to watch no event ever comes; the regular look at everything is enough."""
    forbid_watches(own_cluster, namespace)
    with OperatorProcess(
        tmp_path / "one", kubeconfig, namespace, WATCH_NAMESPACE=namespace, RESYNC_SECONDS="2"
    ) as operator:
        own_cluster.apply(proxy(), namespace=namespace)
        own_cluster.wait_for(bool, "deployment", DEPLOYMENT, namespace)
        own_cluster.delete("service", DEPLOYMENT, namespace)
        own_cluster.wait_for(bool, "service", DEPLOYMENT, namespace)
        own_cluster.delete(PROXY, "px", namespace)
        until(lambda: owned(own_cluster, namespace) == [])
        assert operator.is_running()


def test_connections_that_hang_leave_nothing_alone_for_a_minute(
    control_plane: ControlPlane, own_cluster: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    """With the settings as they are by default: watches and requests hang, and nobody is told."""
    server = f":{control_plane.server.rpartition(':')[2]}"
    with FreezingProxy(int(server[1:])) as proxied:
        behind = tmp_path / "behind.kubeconfig"
        behind.write_text(kubeconfig.read_text().replace(server, f":{proxied.port}"))
        defaults = {"RETRY_SECONDS": "5", "RESYNC_SECONDS": "60", "DISCOVERY_SECONDS": "30"}
        with OperatorProcess(tmp_path / "one", behind, namespace, WATCH_NAMESPACE=namespace, **defaults) as operator:
            own_cluster.apply(proxy(), namespace=namespace)
            own_cluster.wait_for(lambda it: it.get("status"), PROXY, "px", namespace)
            assert proxied.freeze() > 10
            frozen = time.monotonic()
            own_cluster.delete("service", DEPLOYMENT, namespace)
            own_cluster.patch(PROXY, "px", {"spec": {"targetDimseHost": "other"}}, namespace)
            own_cluster.wait_for(bool, "service", DEPLOYMENT, namespace)
            own_cluster.wait_for(
                lambda it: it["data"]["DIMSE_TARGET_HOST"] == "other", "configmap", "px-proxy-nats-config", namespace
            )
            assert time.monotonic() - frozen < A_MINUTE + GRACE
            assert operator.is_running()


def forbid_watches(kubectl: Kubectl, namespace: str) -> None:
    """Take ``watch`` out of every rule."""
    role = kubectl.get("role", "imaging-operator", namespace)
    assert role is not None
    rules = [{**rule, "verbs": [verb for verb in rule["verbs"] if verb != "watch"]} for rule in role["rules"]]
    kubectl.patch("role", "imaging-operator", {"rules": rules}, namespace)


def test_the_second_replica_takes_over_from_a_killed_one(
    own_cluster: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    options = {"WATCH_NAMESPACE": namespace, "LEASE_SECONDS": "6"}
    with (
        OperatorProcess(tmp_path / "one", kubeconfig, namespace, **options) as first,
        OperatorProcess(tmp_path / "two", kubeconfig, namespace, **options) as second,
    ):
        until(lambda: first.leads() != second.leads())
        leader, other = (first, second) if first.leads() else (second, first)
        own_cluster.apply(proxy(), namespace=namespace)
        own_cluster.wait_for(bool, "deployment", DEPLOYMENT, namespace)
        assert other.is_ready()
        assert other.metric("imaging_operator_reconciliations_total") == 0
        leader.kill()
        own_cluster.apply(proxy("new"), namespace=namespace)
        own_cluster.wait_for(bool, "deployment", "new-dimse-proxy", namespace)
        assert other.leads()
        assert first.forbidden() + second.forbidden() == []


def test_a_leader_that_ends_hands_over_at_once(
    own_cluster: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    options = {"WATCH_NAMESPACE": namespace, "LEASE_SECONDS": "3600"}
    with OperatorProcess(tmp_path / "one", kubeconfig, namespace, **options) as first:
        until(first.leads)
        assert first.stop() == 0
        lease = own_cluster.get("lease", "imaging-ingestion-operator", namespace)
        assert lease is not None
        assert lease["spec"].get("holderIdentity", "") == ""
        with OperatorProcess(tmp_path / "two", kubeconfig, namespace, **options) as second:
            until(second.leads)


def test_a_leader_whose_lease_was_taken_ends_with_an_error(
    own_cluster: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    with OperatorProcess(
        tmp_path / "one", kubeconfig, namespace, WATCH_NAMESPACE=namespace, LEASE_SECONDS="6"
    ) as operator:
        until(operator.leads)
        taken = {"spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600}}
        own_cluster.patch("lease", "imaging-ingestion-operator", taken, namespace)
        assert operator.wait() == 1
        assert "another leads now" in operator.last_words()


def test_a_single_replica_needs_no_lease(
    own_cluster: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    with OperatorProcess(
        tmp_path / "one", kubeconfig, namespace, WATCH_NAMESPACE=namespace, LEADER_ELECTION="off"
    ) as operator:
        own_cluster.apply(proxy(), namespace=namespace)
        own_cluster.wait_for(bool, "deployment", DEPLOYMENT, namespace)
        assert operator.leads()
        assert own_cluster.objects("leases", namespace) == []
        assert operator.stop() == 0


def test_a_namespace_that_is_not_watched_is_left_alone(
    own_cluster: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    second, unwatched = own_cluster.new_namespace(), own_cluster.new_namespace()
    grant(own_cluster, second, lease_namespace=namespace)
    with OperatorProcess(tmp_path / "one", kubeconfig, namespace, WATCH_NAMESPACE=f"{namespace},{second}") as operator:
        for each in (unwatched, namespace, second):
            own_cluster.apply(proxy(), namespace=each)
        for each in (namespace, second):
            own_cluster.wait_for(bool, "deployment", DEPLOYMENT, each)
        assert own_cluster.objects("deployments", unwatched) == []
        assert operator.forbidden() == []
    for each in (second, unwatched):
        own_cluster.delete("namespace", each, wait=False)


def test_objects_of_the_reference_system_are_adopted(
    own_cluster: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    own_cluster.apply(proxy(), namespace=namespace)
    resource = own_cluster.get(PROXY, "px", namespace)
    assert resource is not None
    former = reference_deployment(resource)
    own_cluster("create", "-n", namespace, "--field-manager=manager", "-f", "-", stdin=json.dumps(former))
    before = own_cluster.get("deployment", DEPLOYMENT, namespace)
    assert before is not None
    with OperatorProcess(tmp_path / "one", kubeconfig, namespace, WATCH_NAMESPACE=namespace) as operator:
        after = own_cluster.wait_for(
            lambda it: "imaging-ingestion.alvearie.org/kind" in it["metadata"].get("labels", {}),
            "deployment",
            DEPLOYMENT,
            namespace,
        )
        assert operator.forbidden() == []
    (container,) = after["spec"]["template"]["spec"]["containers"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert "INSECURE_SKIP_VERIFY" not in {each["name"] for each in container["env"]}
    assert container["image"] == "registry.example/imaging-ingestion:test"


def reference_deployment(resource: Json) -> Json:
    """As the operator of the reference system makes it, in short."""
    owner = {key: resource[key] for key in ("apiVersion", "kind")}
    owner |= {key: resource["metadata"][key] for key in ("name", "uid")} | {"controller": True}
    container = {
        "name": "proxy",
        "image": "alvearie/dicom-dimse-proxy:0.0.1",
        "env": [{"name": "DIMSE_ACTOR", "value": "SCP"}, {"name": "INSECURE_SKIP_VERIFY", "value": "true"}],
    }
    labels = {"app": DEPLOYMENT}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": DEPLOYMENT, "ownerReferences": [owner]},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
