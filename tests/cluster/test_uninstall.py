"""What is left of the system when it is taken away: nothing but the definitions of its kinds. Runs last."""

from cluster.kubectl import KubectlError, until
from cluster.quickstart import Quickstart, uninstall
from cluster.system import KINDS, NAMESPACE, System

# Kubernetes makes the first two in every namespace; Events and Leases run out, or stay, by themselves.
NOT_OURS = {"configmap/kube-root-ca.crt", "serviceaccount/default"}


def test_nothing_is_left(quickstart: Quickstart) -> None:
    uninstall(quickstart.transcript, quickstart.system)
    system = quickstart.system
    until(lambda: _left(system) == set(), account=lambda: str(sorted(_left(system))))
    roles = system.kubectl.objects(
        "clusterroles,clusterrolebindings", selector="app.kubernetes.io/name=imaging-ingestion"
    )
    assert [role["metadata"]["name"] for role in roles] == []
    kept = system.kubectl.objects("customresourcedefinitions")
    assert {each["spec"]["names"]["plural"] for each in kept} >= set(KINDS)


def _left(system: System) -> set[str]:
    kinds = system.kubectl("api-resources", "--namespaced", "--verbs=list,delete", "-o", "name").split()
    asked = ",".join(kind for kind in kinds if not kind.startswith("events"))
    try:
        names = system.kubectl("-n", NAMESPACE, "get", asked, "-o", "name", "--ignore-not-found").split()
    except KubectlError as error:
        return {str(error)}
    return set(names) - NOT_OURS
