"""What tests ask of Knative Services: whether they have pods, and how to call them from outside."""

from cluster.kind import Kind
from cluster.kubectl import Json, Kubectl
from cluster.node import Node
from knative.installation import DOMAIN, PORT

SERVICE = "serving.knative.dev/service"
REVISION = "serving.knative.dev/revision"


def pods(kubectl: Kubectl, namespace: str, service: str = "") -> list[Json]:
    """The pods of the revision in use of a Knative Service, or of all."""
    found = kubectl.objects("pods", namespace, selector=f"{SERVICE}={service}" if service else SERVICE)
    used = _in_use(kubectl, namespace)
    return [each for each in found if each["metadata"]["labels"][REVISION] in used]


def awake(kubectl: Kubectl, namespace: str) -> set[str]:
    """The Knative Services that have a pod now."""
    return {each["metadata"]["labels"][SERVICE] for each in pods(kubectl, namespace)}


def replicas(kubectl: Kubectl, namespace: str) -> dict[str, int]:
    """How many pods Knative wants of the revision in use of each Knative Service."""
    used = _in_use(kubectl, namespace)
    return {
        each["metadata"]["labels"][SERVICE]: each["spec"]["replicas"]
        for each in kubectl.objects("deployments", namespace, selector=SERVICE)
        if each["metadata"]["labels"][REVISION] in used
    }


def revisions(kubectl: Kubectl, namespace: str) -> dict[str, str]:
    """What Knative says of every revision there ever was: ``True`` when it works, else why not."""
    return {
        each["metadata"]["name"]: next(
            it.get("reason") or it["status"] for it in each["status"]["conditions"] if it["type"] == "Ready"
        )
        for each in kubectl.objects("revisions.serving.knative.dev", namespace)
    }


def is_at_zero(kubectl: Kubectl, namespace: str) -> bool:
    """True when there are Knative Services, and none has a pod or is meant to have one."""
    wanted = replicas(kubectl, namespace)
    return bool(wanted) and not any(wanted.values()) and not pods(kubectl, namespace)


def public(node: Node | Kind, namespace: str, service: str) -> tuple[str, dict[str, str]]:
    """URL and headers with which a public Knative Service is called from this machine; no DNS has its name."""
    return f"http://{node.address}:{PORT}", {"Host": f"{service}.{namespace}.{DOMAIN}"}


def _in_use(kubectl: Kubectl, namespace: str) -> set[str]:
    services = kubectl.objects("services.serving.knative.dev", namespace)
    return {each.get("status", {}).get("latestReadyRevisionName", "") for each in services}
