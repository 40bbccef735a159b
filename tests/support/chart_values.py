"""The sets of values with which the chart is tried: those of the examples, and the corners."""

from pathlib import Path
from typing import Any

import yaml

_EXAMPLES = Path(__file__).parents[2] / "examples" / "kubernetes"

VALUE_SETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "trial": yaml.safe_load((_EXAMPLES / "trial-values.yaml").read_text()),
    "production": yaml.safe_load((_EXAMPLES / "production-values.yaml").read_text()),
    "everything": {
        "image": {"tag": "1.2.3", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "watch": {"namespaces": ["imaging", "other"]},
        "operator": {
            "replicas": 3,
            "logLevel": "debug",
            "env": [{"name": "SOME_VARIABLE", "value": "1"}],
            "podAnnotations": {"a": "b"},
            "podLabels": {"team": "imaging"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "control-plane", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}
                    ]
                }
            },
            "priorityClassName": "system-cluster-critical",
        },
        "serviceAccount": {"annotations": {"a": "b"}},
        "knative": {"enabled": True},
        "networkPolicy": {"trialFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        "metrics": {
            "service": {"annotations": {"a": "b"}},
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        },
        "trial": {"keepData": True, "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]},
        "nats": {
            "enabled": True,
            "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
            "persistence": {"storageClass": "fast"},
        },
        "postgresql": {"enabled": True, "password": "not-a-secret"},
        "s3": {"enabled": True, "accessKeyId": "trial", "secretAccessKey": "not-a-secret"},
    },
    "without policies, volumes and CRDs": {
        "crds": {"install": False},
        "networkPolicy": {"enabled": False, "workloads": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "existing"},
        "operator": {"leaderElection": False, "podDisruptionBudget": {"enabled": False}},
        "nats": {"enabled": True, "persistence": {"enabled": False}},
        "postgresql": {"enabled": True, "persistence": {"enabled": False}},
        "s3": {"enabled": True, "persistence": {"enabled": False}},
    },
    "external backends": {
        "nats": {"url": "nats://a.example.org:4222,nats://b.example.org:4222", "tls": True, "subjectRoot": "site"},
        "clusterDomain": "cluster.example",
        "fullnameOverride": "imaging-prod",
    },
}
