"""The status: phase, message, conditions, and when nothing is to be written."""

from typing import Any

import pytest

from imaging_operator.errors import MissingReference, Wrong
from imaging_operator.status import Outcome, failure, next_status, waits_for

Json = dict[str, Any]
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
TRUE = {"status": "True"}


def deployment(conditions: dict[str, Json] | None = None, **status: Any) -> Json:
    found = {"observedGeneration": 1, "updatedReplicas": 1, **status}
    if conditions is not None:
        found["conditions"] = [{"type": name, **each} for name, each in conditions.items()]
    metadata = {"name": "d", "generation": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"replicas": 1},
        "status": found,
    }


def knative(ready: Json | None, **status: Any) -> Json:
    conditions = [{"type": "Ready", **ready}] if ready else []
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "k", "generation": 2},
        "status": {"observedGeneration": 2, "conditions": conditions, **status},
    }


READY = deployment({"Available": TRUE, "Progressing": TRUE})


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (READY, ""),
        (deployment({"Available": TRUE}), ""),
        (deployment(), "not looked at by Kubernetes yet"),
        (deployment({"Available": TRUE}, observedGeneration=0), "not looked at by Kubernetes yet"),
        (deployment({"Available": {"status": "False", "message": "no pods"}}), "no pods"),
        (deployment({"Progressing": TRUE}), "not available yet"),
        (deployment({"Available": TRUE, "Progressing": {"status": "False", "reason": "Deadline"}}), "Deadline"),
        (deployment({"Available": TRUE}, updatedReplicas=0), "0 of 1 pods are up to date"),
        (knative(TRUE), ""),
        (knative(None), "not looked at by Knative yet"),
        (knative(TRUE, observedGeneration=1), "not looked at by Knative yet"),
        (knative({"status": "Unknown", "message": "deploying"}), "deploying"),
        ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}, ""),
    ],
)
def test_what_an_object_waits_for(document: Json, why: str) -> None:
    shown = waits_for(document)
    assert shown.partition(": ")[2] == why


def test_a_deployment_without_replicas_is_ready() -> None:
    document = deployment({"Available": TRUE}, updatedReplicas=0)
    document["spec"]["replicas"] = 0
    assert waits_for(document) == ""


def test_all_ready() -> None:
    found = {"secret": {"kind": "Secret", "metadata": {"name": "s"}}}
    status = next_status({}, 3, Outcome(found=found, observed=[READY], own={"endpoint": "e", "none": None}), NOW)
    assert status["phase"] == "Reconciling"
    assert status["message"] == "All resource are ready"
    assert status["ready"] is True
    assert status["secondaryResources"] == {"Deployment": ["d"], "Secret": ["s"]}
    assert status["endpoint"] == "e"
    assert "none" not in status
    assert status["observedGeneration"] == 3
    assert [each["status"] for each in status["conditions"]] == ["True", "True", "True"]


def test_not_ready_names_what_is_waited_for() -> None:
    status = next_status({}, 1, Outcome(found={}, observed=[READY, deployment()], own={}), NOW)
    assert (status["phase"], status["message"]) == ("Initializing", "One or more resources are not ready")
    assert status["conditions"][0]["message"] == "Deployment d: not looked at by Kubernetes yet"


def test_refused_pods_are_a_failure() -> None:
    refused = deployment({"ReplicaFailure": {"status": "True", "message": "exceeded quota"}})
    assert failure(refused) == "Deployment d: exceeded quota"
    status = next_status({}, 1, Outcome(found={}, observed=[refused], own={}), NOW)
    assert (status["phase"], status["message"]) == ("Failing", "Deployment d: exceeded quota")
    assert status["conditions"][0]["reason"] == "ReplicaFailure"
    assert status["conditions"][1]["status"] == "True"


@pytest.mark.parametrize(
    ("error", "resolved"), [(MissingReference("Missing Secret"), "False"), (Wrong("wrong"), "Unknown")]
)
def test_an_error_keeps_what_the_kind_said_before(error: Wrong | MissingReference, resolved: str) -> None:
    old = next_status({}, 1, Outcome(found={}, observed=[READY], own={"endpoint": "e"}), NOW)
    status = next_status(old, 1, Outcome(error=error), LATER)
    assert (status["phase"], status["message"], status["ready"]) == ("Failing", str(error), False)
    assert status["endpoint"] == "e"
    assert status["secondaryResources"] == {"Deployment": ["d"]}
    assert [each["status"] for each in status["conditions"]] == ["False", "False", resolved]


def test_nothing_new_is_equal_and_transitions_are_timed() -> None:
    outcome = Outcome(found={}, observed=[READY], own={})
    old = next_status({}, 1, outcome, NOW)
    assert next_status(old, 1, outcome, LATER) == old
    waiting = next_status(old, 1, Outcome(found={}, observed=[deployment()], own={}), LATER)
    assert [each["lastTransitionTime"] for each in waiting["conditions"]] == [LATER, NOW, NOW]


def test_a_status_of_an_older_operator_is_replaced() -> None:
    old = {"phase": "Failing", "message": "x", "ready": False, "secondaryResources": {"ServiceEndpoint": ["u"]}}
    status = next_status(old, 1, Outcome(found={}, observed=[READY], own={}), NOW)
    assert status["secondaryResources"] == {"Deployment": ["d"]}
