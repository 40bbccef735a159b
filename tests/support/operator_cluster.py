"""Resources for the operator's tests on a real API server, and a kubelet's place: pods that say they are ready."""

import base64
from collections.abc import Mapping
from typing import Any

from cluster.kubectl import Kubectl, until
from imaging_operator.builders.names import MANAGED_BY

Json = dict[str, Any]
GROUP_VERSION = "imaging-ingestion.alvearie.org/v1alpha1"
DEPLOYMENT = "px-dimse-proxy"
PROXY = "DimseProxy"
EDI = "DicomEventDrivenIngestion"
OWNED_KINDS = (
    "serviceaccounts,configmaps,services,deployments,poddisruptionbudgets,horizontalpodautoscalers,networkpolicies,"
    "ingresses"
)


def custom(kind: str, name: str, spec: Mapping[str, Any]) -> Json:
    """One of the seven kinds."""
    return {"apiVersion": GROUP_VERSION, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


def proxy(name: str = "px", **spec: Any) -> Json:
    """A DimseProxy that needs no other object."""
    fields = {"natsUrl": "nats:4222", "applicationEntityTitle": "PACS", "targetDimseHost": "pacs"}
    return custom(PROXY, name, {**fields, "targetDimsePort": 104, **spec})


def edi(name: str = "hospital", **spec: Any) -> Json:
    """A DicomEventDrivenIngestion that needs Secret ``db-secret`` and ConfigMap ``db-config``."""
    return custom(EDI, name, {"databaseConfigName": "db-config", "databaseSecretName": "db-secret", **spec})


def database() -> dict[str, str]:
    """Data of the database's ConfigMap."""
    return {"DB_HOST": "db", "DB_PORT": "5432", "DB_NAME": "manifest"}


def secret(name: str, data: Mapping[str, str]) -> Json:
    """A Secret."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def config_map(name: str, data: Mapping[str, str]) -> Json:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(data)}


def conditions(resource: Json) -> dict[str, Json]:
    """Conditions of a status by type."""
    return {each["type"]: each for each in resource["status"]["conditions"]}


def owned(kubectl: Kubectl, namespace: str) -> list[Json]:
    """Everything that the operator made there."""
    return kubectl.objects(OWNED_KINDS, namespace, selector=f"app.kubernetes.io/managed-by={MANAGED_BY}")


def notes(kubectl: Kubectl, namespace: str, name: str) -> list[tuple[str, str]]:
    """Reason and note of the Events about an object that the operator posted."""
    events = kubectl.objects("events.events.k8s.io", namespace)
    return [
        (each["reason"], each["note"])
        for each in events
        if each["regarding"]["name"] == name and each.get("reportingController") == MANAGED_BY
    ]


def run_pods(kubectl: Kubectl, namespace: str) -> None:
    """What a kubelet would do: say of every pod that it runs and is ready; returns when the Deployments say so too."""

    def all_available() -> bool:
        for pod in kubectl.objects("pods", namespace):
            if pod["status"].get("phase") != "Running" and not pod["metadata"].get("deletionTimestamp"):
                _run(kubectl, namespace, pod["metadata"]["name"])
        deployments = kubectl.objects("deployments", namespace)
        return bool(deployments) and all(map(_is_available, deployments))

    until(all_available)


def _run(kubectl: Kubectl, namespace: str, name: str) -> None:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"phase": "Running", "conditions": [condition]}
    kubectl.patch("pod", name, {"status": status}, namespace, subresource="status")


def _is_available(deployment: Json) -> bool:
    status, wanted = deployment.get("status") or {}, deployment["spec"]["replicas"]
    return (
        status.get("observedGeneration") == deployment["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )


def answer_as_knative(kubectl: Kubectl, namespace: str) -> None:
    """What Knative's controllers would do: say of every object of theirs that it is ready, and where it is."""
    kinds = "services.serving.knative.dev,brokers.eventing.knative.dev,triggers.eventing.knative.dev,"
    for each in kubectl.objects(f"{kinds}sinkbindings.sources.knative.dev", namespace):
        name, generation = each["metadata"]["name"], each["metadata"]["generation"]
        if (each.get("status") or {}).get("observedGeneration") == generation:
            continue
        group = each["apiVersion"].partition("/")[0]
        status: Json = {"observedGeneration": generation, "conditions": [{"type": "Ready", "status": "True"}]}
        if each["kind"] in ("Service", "Broker"):
            status["address"] = {"url": f"http://{name}.{namespace}.svc.cluster.local"}
        if each["kind"] == "Service":
            status["url"] = f"https://{name}.{namespace}.example.org"
        kubectl.patch(f"{each['kind']}.{group}", name, {"status": status}, namespace, subresource="status")


def made(kubectl: Kubectl, namespace: str, **spec: Any) -> Json:
    """A proxy, and its Deployment once the operator made it."""
    kubectl.apply(proxy(**spec), namespace=namespace)
    return kubectl.wait_for(bool, "deployment", DEPLOYMENT, namespace)
