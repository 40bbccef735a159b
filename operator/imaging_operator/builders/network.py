"""NetworkPolicies: who may open connections to a workload.

Only incoming traffic is restricted, to the ports that are served. Outgoing traffic is left open on purpose: NATS, the
database, storage and the targets of bindings may be anywhere, and a policy compares ports after a Service's have been
translated, so that the ports in the settings say nothing about those it would have to allow. Who wants to restrict it
adds a policy with ``policyTypes: [Egress]`` for the labels of the pods; policies add up.
"""

from imaging_operator.builders.names import metadata
from imaging_operator.builders.types import Json, Owner
from imaging_operator.builders.workload import Workload, selector


def network_policy(owner: Owner, workload: Workload, *, private: bool) -> Json:
    """Traffic from anywhere, or only from pods of the namespace (``private``), to the served ports; health and metrics
    from anywhere, for kubelets and Prometheus."""
    served = [each.port.name for each in workload.containers if each.port]
    rules: list[Json] = []
    if served:
        rule: Json = {"ports": [_port(name) for name in served]}
        if private:
            rule["from"] = [{"podSelector": {}}]
        rules.append(rule)
    if any(each.ours for each in workload.containers):
        rules.append({"ports": [_port("health")]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(owner, workload.name, workload.component),
        "spec": {
            "podSelector": {"matchLabels": selector(workload.name)},
            "policyTypes": ["Ingress"],
            "ingress": rules,
        },
    }


def _port(name: str) -> Json:
    return {"port": name, "protocol": "TCP"}
