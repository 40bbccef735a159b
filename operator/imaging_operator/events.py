"""Kubernetes Events about a resource: what ``kubectl describe`` shows."""

import uuid
from datetime import UTC, datetime
from typing import Literal

import structlog

from imaging_operator.builders.names import MANAGED_BY
from imaging_operator.cluster import Cluster
from imaging_operator.errors import Conflict, ReconcileError
from imaging_operator.resources import EVENT, Json

log = structlog.get_logger(__name__)

_LONGEST_NOTE = 1024  # bytes, by the API


class EventRecorder:
    """Posts Events; one that cannot be posted is only logged, since nothing depends on it."""

    def __init__(self, cluster: Cluster, instance: str) -> None:
        self._cluster = cluster
        self._instance = instance

    async def record(
        self, about: Json, reason: str, note: str, *, kind: Literal["Normal", "Warning"] = "Normal"
    ) -> None:
        """Say something about a resource, which may be gone already; ``reason`` is one CamelCase word."""
        metadata = about["metadata"]
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{metadata['name'][:200]}.{uuid.uuid4().hex}", "namespace": metadata["namespace"]},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": kind,
            "reason": reason,
            "note": note.encode()[:_LONGEST_NOTE].decode(errors="ignore"),
            "action": "Reconcile",
            "reportingController": MANAGED_BY,
            "reportingInstance": self._instance[:128],
            "regarding": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
        }
        try:
            await self._cluster.create(EVENT, metadata["namespace"], event)
        except Conflict:
            log.debug("event not posted, the namespace goes away", resource=metadata["name"], reason=reason)
        except ReconcileError as error:
            log.warning("event not posted", resource=metadata["name"], reason=reason, error=str(error))
