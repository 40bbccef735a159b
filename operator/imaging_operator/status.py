"""What a resource's status says after a pass. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imaging_operator.errors import MissingReference, ReconcileError
from imaging_operator.resources import BROKER, DEPLOYMENT, KNATIVE_SERVICE, SINK_BINDING, TRIGGER, Json

ALL_READY = "All resource are ready"  # sic: people and scripts look for these words
NOT_READY = "One or more resources are not ready"
_COMMON = {"phase", "message", "ready", "secondaryResources", "observedGeneration", "conditions"}
_KNATIVE = {(each.api_version, each.kind) for each in (BROKER, KNATIVE_SERVICE, SINK_BINDING, TRIGGER)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pass went."""

    error: ReconcileError | None = None
    found: Mapping[str, Json] | None = None
    """The references, when they were all there."""
    observed: Sequence[Json] = ()
    """The resource's objects as they are now."""
    own: Mapping[str, Any] | None = None
    """Fields of this kind; None keeps those that the status has."""


def next_status(old: Json, generation: int, outcome: Outcome, now: str) -> Json:
    """The whole status; equal to ``old`` when there is nothing new. ``now`` is RFC 3339."""
    waiting = [text for text in map(waits_for, outcome.observed) if text]
    failures = [text for text in map(failure, outcome.observed) if text]
    phase, message = _phase(outcome.error, failures, waiting)
    own = outcome.own if outcome.own is not None else {key: old[key] for key in old if key not in _COMMON}
    used = [*(outcome.found or {}).values(), *outcome.observed]
    conditions = [
        ("Ready", *_ready(outcome.error, failures, waiting)),
        ("Reconciled", *_reconciled(outcome.error)),
        ("ReferencesResolved", *_resolved(outcome)),
    ]
    return {
        **{key: value for key, value in own.items() if value is not None},
        "phase": phase,
        "message": message,
        "ready": phase == "Reconciling",
        "secondaryResources": _names(used) if used else old.get("secondaryResources") or {},
        "observedGeneration": generation,
        "conditions": [_condition(each, old.get("conditions") or [], generation, now) for each in conditions],
    }


def waits_for(document: Json) -> str:
    """Why an object is not ready; empty when it is. What has no life of its own is ready once it exists."""
    kind, name = document["kind"], document["metadata"]["name"]
    identity = document["apiVersion"], kind
    if identity == (DEPLOYMENT.api_version, DEPLOYMENT.kind):
        why = _deployment_waits(document)
    elif identity in _KNATIVE:
        why = _knative_waits(document)
    else:
        return ""
    return f"{kind} {name}: {why}" if why else ""


def failure(document: Json) -> str:
    """What Kubernetes refuses to do for a Deployment, such as pods beyond a quota; empty when nothing."""
    refused = _conditions(document).get("ReplicaFailure", {})
    if document["kind"] != DEPLOYMENT.kind or refused.get("status") != "True":
        return ""
    return f"Deployment {document['metadata']['name']}: {refused.get('message') or refused.get('reason')}"


def _deployment_waits(document: Json) -> str:
    status, conditions = document.get("status") or {}, _conditions(document)
    if status.get("observedGeneration", 0) < document["metadata"].get("generation", 0) or not conditions:
        return "not looked at by Kubernetes yet"
    wanted = document.get("spec", {}).get("replicas", 1)
    for name in ("Available", "Progressing"):
        condition = conditions.get(name)
        # Progressing is absent where spec.progressDeadlineSeconds turns it off.
        if condition and condition["status"] != "True":
            return str(condition.get("message") or condition.get("reason") or f"not {name}")
    if status.get("updatedReplicas", 0) < wanted:
        return f"{status.get('updatedReplicas', 0)} of {wanted} pods are up to date"
    return "" if "Available" in conditions else "not available yet"


def _knative_waits(document: Json) -> str:
    status = document.get("status") or {}
    ready = _conditions(document).get("Ready")
    if ready is None or status.get("observedGeneration", 0) < document["metadata"].get("generation", 0):
        return "not looked at by Knative yet"
    return "" if ready["status"] == "True" else str(ready.get("message") or ready.get("reason") or "not ready")


def _conditions(document: Json) -> dict[str, Json]:
    return {each["type"]: each for each in (document.get("status") or {}).get("conditions") or []}


def _phase(error: ReconcileError | None, failures: Sequence[str], waiting: Sequence[str]) -> tuple[str, str]:
    if error or failures:
        return "Failing", str(error) if error else failures[0]
    return ("Initializing", NOT_READY) if waiting else ("Reconciling", ALL_READY)


def _ready(error: ReconcileError | None, failures: Sequence[str], waiting: Sequence[str]) -> tuple[str, str, str]:
    if error:
        return "False", error.reason, str(error)
    if failures or waiting:
        return "False", "ReplicaFailure" if failures else "Waiting", "; ".join([*failures, *waiting])
    return "True", "AllReady", ALL_READY


def _reconciled(error: ReconcileError | None) -> tuple[str, str, str]:
    return ("False", error.reason, str(error)) if error else ("True", "Applied", "The objects are as they should be")


def _resolved(outcome: Outcome) -> tuple[str, str, str]:
    if isinstance(outcome.error, MissingReference):
        return "False", outcome.error.reason, str(outcome.error)
    if outcome.found is None:
        return "Unknown", "NotLookedUp", "The references were not looked up"
    return "True", "Found", "What the resource refers to exists"


def _condition(wanted: tuple[str, str, str, str], old: Sequence[Json], generation: int, now: str) -> Json:
    kind, status, reason, message = wanted
    before = next((each for each in old if each.get("type") == kind), {})
    unchanged = before.get("status") == status and before.get("lastTransitionTime")
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:32768],
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if unchanged else now,
    }


def _names(documents: Iterable[Json]) -> dict[str, list[str]]:
    names: dict[str, set[str]] = {}
    for each in documents:
        names.setdefault(each["kind"], set()).add(each["metadata"]["name"])
    return {kind: sorted(found) for kind, found in sorted(names.items())}
