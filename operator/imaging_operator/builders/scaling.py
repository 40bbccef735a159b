"""How many pods run, and how many may be missing: autoscalers and disruption budgets."""

from dataclasses import dataclass

from imaging_operator.builders.names import metadata
from imaging_operator.builders.types import Json, Owner
from imaging_operator.builders.workload import Workload, selector

_BUSY_PERCENT = 75
_LAG = 100
"""Messages waiting per pod at which another pod is started."""


@dataclass(frozen=True, slots=True)
class Lag:
    """A JetStream consumer whose waiting messages say how many pods are needed; ``urgent`` is that of the messages
    which overtake, if it has one: then each of the two counts."""

    monitoring: str
    """``host:port`` of the NATS server's monitoring endpoint."""
    account: str
    stream: str
    consumer: str
    urgent: str = ""

    @property
    def consumers(self) -> list[str]:
        """Both."""
        return [self.consumer, self.urgent] if self.urgent else [self.consumer]


def autoscaling(owner: Owner, workload: Workload, lag: Lag | None = None) -> list[Json]:
    """Nothing for a fixed number; by the consumer's lag where it is given (KEDA), else by CPU."""
    if not workload.scale.varies:
        return []
    return [_scaled_object(owner, workload, lag) if lag else _horizontal(owner, workload)]


def disruption_budget(owner: Owner, workload: Workload) -> list[Json]:
    """At most one pod is evicted at a time. For a single pod it would protect nothing, or block a node's drain."""
    if not workload.scale.several:
        return []
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(owner, workload.name, workload.component),
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": selector(workload.name)},
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
    ]


def _target(workload: Workload) -> Json:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.name}


def _horizontal(owner: Owner, workload: Workload) -> Json:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(owner, workload.name, workload.component),
        "spec": {
            "scaleTargetRef": _target(workload),
            "minReplicas": workload.scale.minimum,
            "maxReplicas": workload.scale.maximum,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": _BUSY_PERCENT},
                    },
                }
            ],
        },
    }


def _scaled_object(owner: Owner, workload: Workload, lag: Lag) -> Json:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(owner, workload.name, workload.component),
        "spec": {
            "scaleTargetRef": _target(workload),
            "minReplicaCount": workload.scale.minimum,
            "maxReplicaCount": workload.scale.maximum,
            "triggers": [
                {
                    "type": "nats-jetstream",
                    "metadata": {
                        "account": lag.account,
                        "consumer": consumer,
                        "lagThreshold": str(_LAG),
                        "natsServerMonitoringEndpoint": lag.monitoring,
                        "stream": lag.stream,
                    },
                }
                for consumer in lag.consumers
            ],
        },
    }
