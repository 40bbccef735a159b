"""A spec of each kind with every field of the interface's tables."""

from typing import Any

from imaging_operator.specs.resources import RESOURCES

Json = dict[str, Any]
EDI, WEB, IB, SB, DIS, PROXY, BRIDGE = (resource.kind for resource in RESOURCES)
BY_KIND = {resource.kind: resource for resource in RESOURCES}
PULL: Json = {"imagePullPolicy": "IfNotPresent", "imagePullSecrets": [{"name": "registry"}]}
SERVICE: Json = {"image": "example.org/service:1", "concurrency": 100, "minReplicas": 1, "maxReplicas": 3}
NATS: Json = {"natsUrl": "nats:4222", "natsSecure": True, "natsSubjectRoot": "DIMSE", "natsTokenSecret": "token"}
BUCKET: Json = {"bucketConfigName": "bucket-config", "bucketSecretName": "bucket-secret"}
BINDING: Json = {"bindingConfigName": "binding-config", "bindingSecretName": "binding-secret"}
IN_EDI: Json = {"dicomEventDrivenIngestionName": "core"}
WORKLOAD: Json = {"image": "example.org/workload:1"}
# Every field of the interface's tables (sections 1.2 to 1.9).
COMPLETE: dict[str, Json] = {
    EDI: {
        "databaseConfigName": "db-config",
        "databaseSecretName": "db-secret",
        "eventProcessor": SERVICE,
        "revisioningDelay": 60,
        **PULL,
    },
    WEB: {**IN_EDI, **BUCKET, "providerName": "provider", "stowService": SERVICE, "wadoService": SERVICE, **PULL},
    IB: {**IN_EDI, **BINDING, "instanceBinding": SERVICE, **PULL},
    SB: {**IN_EDI, **BINDING, "studyBinding": SERVICE, **PULL},
    DIS: {
        **IN_EDI,
        **BUCKET,
        **NATS,
        "providerName": "provider",
        "applicationEntityTitle": "DICOM-INGEST",
        "dimseService": WORKLOAD,
        **PULL,
    },
    PROXY: {
        **NATS,
        "applicationEntityTitle": "PACS",
        "targetDimseHost": "pacs.example.org",
        "targetDimsePort": 104,
        "natsSubjectChannel": "B",
        "proxy": WORKLOAD,
        **PULL,
    },
    BRIDGE: {**IN_EDI, **NATS, "role": "edge", "edgeMailbox": "north", "eventBridge": WORKLOAD, **PULL},
}
