"""One pass over one resource of a small kind of its own, against an API server in memory."""

from typing import Any

import pytest

from imaging_operator.builders.names import KIND_LABEL, MANAGED_BY, OWNER_LABEL
from imaging_operator.errors import ApiUnavailable, Conflict, Forbidden, MissingReference, Wrong
from support.operator_stand import KEY, Stand

Json = dict[str, Any]


@pytest.fixture
def stand() -> Stand:
    return Stand()


async def test_objects_are_made_with_their_owner(stand: Stand) -> None:
    resource = stand.resource()
    assert await stand.run()
    deployment = stand.api.get("deployments", "one")
    assert deployment is not None
    assert deployment["metadata"]["ownerReferences"][0]["uid"] == resource["metadata"]["uid"]
    assert stand.api.names("configmaps") == ["one-lists"]
    assert stand.status["phase"] == "Initializing"
    assert stand.status["endpoint"] == "http://a"


async def test_a_second_pass_only_reads(stand: Stand) -> None:
    stand.resource()
    await stand.run()
    await stand.run()
    assert stand.api.writes() == []


async def test_the_first_pass_of_a_new_process_applies_and_changes_nothing(stand: Stand) -> None:
    stand.resource()
    await stand.run()
    before = stand.api.get("deployments", "one")
    stand.restart()
    await stand.run()
    assert stand.api.writes() == [("PATCH", "/apis/apps/v1/namespaces/ns/deployments/one")]
    assert stand.api.get("deployments", "one") == before


async def test_a_changed_spec_changes_the_object(stand: Stand) -> None:
    stand.resource()
    await stand.run()
    stand.change(text="b")
    await stand.run()
    deployment = stand.api.get("deployments", "one")
    assert deployment is not None
    assert deployment["spec"]["text"] == "b"
    assert stand.status["endpoint"] == "http://b"
    assert stand.status["observedGeneration"] == 2


@pytest.mark.parametrize(
    "edit",
    [
        {"spec": {"text": "edited"}},
        {"metadata": {"labels": {KIND_LABEL: None}}},
        {"metadata": {"annotations": {"example.org/x": "y"}}},
    ],
)
async def test_an_edited_object_is_applied_again(stand: Stand, edit: Json) -> None:
    stand.resource()
    await stand.run()
    deployment = stand.api.objects["deployments", "ns", "one"]
    deployment["spec"] |= edit.get("spec", {})
    for part, members in edit.get("metadata", {}).items():
        merged = {**deployment["metadata"].get(part, {}), **members}
        deployment["metadata"][part] = {key: value for key, value in merged.items() if value is not None}
    await stand.run()
    assert ("PATCH", "/apis/apps/v1/namespaces/ns/deployments/one") in stand.api.writes()
    deployment = stand.api.objects["deployments", "ns", "one"]
    assert deployment["spec"]["text"] == "a"
    assert KIND_LABEL in deployment["metadata"]["labels"]


async def test_what_only_the_status_changed_of_is_not_applied_again(stand: Stand) -> None:
    stand.resource()
    await stand.run()
    available = [{"type": "Available", "status": "True"}]
    stand.api.objects["deployments", "ns", "one"]["status"] = {
        "conditions": available,
        "observedGeneration": 1,
        "updatedReplicas": 1,
    }
    await stand.run()
    assert [path for _, path in stand.api.writes()] == [
        "/apis/imaging-ingestion.alvearie.org/v1alpha1/namespaces/ns/fakes/one/status"
    ]
    assert stand.status["ready"] is True


async def test_what_is_no_longer_wanted_is_deleted_and_nothing_else(stand: Stand) -> None:
    stand.resource(extra=True)
    await stand.run()
    assert "one-extra" in stand.api.names("configmaps")
    labels = {"app.kubernetes.io/managed-by": MANAGED_BY, KIND_LABEL: "Fake", OWNER_LABEL: "one"}
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "ns", "labels": labels}}
    stand.api.put("configmaps", stranger)
    stand.change(extra=False)
    await stand.run()
    assert stand.api.names("configmaps") == ["one-lists", "x"]


async def test_what_the_user_may_edit_is_made_once(stand: Stand) -> None:
    stand.resource()
    await stand.run()
    stand.api.objects["configmaps", "ns", "one-lists"]["data"] = {"list": "mine"}
    stand.change(text="b")
    await stand.run()
    kept = stand.api.get("configmaps", "one-lists")
    assert kept is not None
    assert kept["data"] == {"list": "mine"}
    del stand.api.objects["configmaps", "ns", "one-lists"]
    await stand.run()
    assert stand.api.names("configmaps") == ["one-lists"]


async def test_what_the_user_may_edit_is_kept_when_it_is_not_wanted_for_now(stand: Stand) -> None:
    stand.resource()
    await stand.run()
    stand.api.objects["configmaps", "ns", "one-lists"]["data"] = {"list": "mine"}
    stand.change(without_lists=True)
    await stand.run()
    kept = stand.api.get("configmaps", "one-lists")
    assert kept is not None
    assert kept["data"] == {"list": "mine"}


@pytest.mark.parametrize(
    ("before", "after", "gone", "new"),
    [
        ("HorizontalPodAutoscaler", "ScaledObject", "horizontalpodautoscalers", "scaledobjects"),
        ("ScaledObject", "HorizontalPodAutoscaler", "scaledobjects", "horizontalpodautoscalers"),
    ],
)
async def test_one_autoscaler_goes_before_the_other_comes(
    stand: Stand, before: str, after: str, gone: str, new: str
) -> None:
    await stand.serve(("/apis/keda.sh/v1alpha1", "scaledobjects"))
    stand.resource(scaled_by=before)
    await stand.run()
    assert stand.api.names(gone) == ["one"]
    stand.change(scaled_by=after)
    await stand.run()
    writes = [(method, path.split("/")[-2]) for method, path in stand.api.writes()]
    assert writes.index(("DELETE", gone)) < writes.index(("PATCH", new))
    assert (stand.api.names(gone), stand.api.names(new)) == ([], ["one"])


def service_of_route(stand: Stand, resource: Json, labels: Json) -> None:
    """What Knative makes of a Knative Service ``one`` with these labels."""
    route = {"apiVersion": "serving.knative.dev/v1", "kind": "Route", "name": "one", "uid": "r", "controller": True}
    metadata = {"name": "one", "namespace": "ns", "labels": labels, "ownerReferences": [route]}
    stand.api.put("services", {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}})


async def test_from_knative_to_plain(stand: Stand) -> None:
    # The server in memory keeps both kinds of Services in one place, so the second stands for what follows the first.
    await stand.serve(("/apis/serving.knative.dev/v1", "services"))
    resource = stand.resource(knative=True)
    await stand.run()
    labels = stand.api.objects["services", "ns", "one"]["metadata"]["labels"]
    stand.change(knative=False, text="served")
    with stand.api.failing(403, "denied", method="PATCH", path="/deployments"), pytest.raises(Forbidden):
        await stand.run()
    assert ("DELETE", "/apis/serving.knative.dev/v1/namespaces/ns/services/one") in stand.api.writes()
    service_of_route(stand, resource, labels)
    with pytest.raises(Conflict, match="Service one of the former Knative Service is still being removed"):
        await stand.run()
    assert stand.status["phase"] == "Failing"
    del stand.api.objects["services", "ns", "one"]
    await stand.run()
    assert stand.api.objects["services", "ns", "one"]["apiVersion"] == "v1"


async def test_the_service_of_somebody_elses_knative_service_is_not_waited_for(stand: Stand) -> None:
    resource = stand.resource(text="served")
    service_of_route(stand, resource, {"app": "theirs"})
    with pytest.raises(Wrong, match="Service one exists and belongs to Route one"):
        await stand.run()


async def test_what_a_former_resource_left_behind_becomes_ours(stand: Stand) -> None:
    stand.resource()
    await stand.run()
    former = stand.api.objects["deployments", "ns", "one"]["metadata"]["uid"]
    stand.api.objects["configmaps", "ns", "one-lists"]["data"] = {"list": "mine"}
    # kubectl delete --cascade=orphan
    del stand.api.objects["fakes", "ns", "one"]
    for collection, name in (("deployments", "one"), ("configmaps", "one-lists")):
        del stand.api.objects[collection, "ns", name]["metadata"]["ownerReferences"]
    await stand.run()
    again = stand.resource()
    await stand.run()
    for collection, name in (("deployments", "one"), ("configmaps", "one-lists")):
        metadata = stand.api.objects[collection, "ns", name]["metadata"]
        assert [each["uid"] for each in metadata["ownerReferences"]] == [again["metadata"]["uid"]]
    assert stand.api.objects["deployments", "ns", "one"]["metadata"]["uid"] == former
    assert stand.api.objects["configmaps", "ns", "one-lists"]["data"] == {"list": "mine"}
    await stand.run()
    assert stand.api.writes() == []


async def test_a_bug_is_said_without_its_words(stand: Stand) -> None:
    stand.resource()
    await stand.run()
    stand.change(text="bug")
    with pytest.raises(KeyError):
        await stand.run()
    assert stand.status["phase"] == "Failing"
    assert stand.status["message"] == "Internal error of the operator: its log says more; it is tried again"
    assert stand.status["observedGeneration"] == 2
    assert ("InternalError", stand.status["message"]) in stand.api.events()
    stand.change(text="b")
    await stand.run()
    assert stand.status["phase"] == "Initializing"


async def test_a_bug_whose_status_cannot_be_written_is_still_a_bug(stand: Stand) -> None:
    stand.resource(text="bug")
    with stand.api.failing(503, path="/status"), pytest.raises(KeyError):
        await stand.run()


async def test_a_missing_reference_stops_everything_and_is_said(stand: Stand) -> None:
    stand.resource(secret="s")
    with pytest.raises(MissingReference, match=r"^Missing Secret$"):
        await stand.run()
    assert stand.api.names("deployments") == []
    assert (stand.status["phase"], stand.status["message"]) == ("Failing", "Missing Secret")
    assert stand.index.users("Secret", "ns", "s") == {KEY}
    assert stand.api.events() == [("MissingReference", "Missing Secret")]
    with pytest.raises(MissingReference):
        await stand.run()
    assert stand.api.writes() == []
    stand.api.put("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}})
    await stand.run()
    assert stand.status["phase"] == "Initializing"
    assert stand.status["secondaryResources"]["Secret"] == ["s"]


async def test_a_reference_that_goes_away_leaves_what_runs_alone(stand: Stand) -> None:
    stand.api.put("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}})
    stand.resource(secret="s")
    await stand.run()
    del stand.api.objects["secrets", "ns", "s"]
    with pytest.raises(MissingReference):
        await stand.run()
    assert stand.api.names("deployments") == ["one"]
    assert stand.status["endpoint"] == "http://a"


async def test_a_wrong_spec_is_said(stand: Stand) -> None:
    stand.resource(text="refused")
    with pytest.raises(Wrong):
        await stand.run()
    assert stand.status["message"] == "spec.text is refused: choose another"


async def test_a_spec_that_its_model_refuses_is_said_without_its_value(stand: Stand) -> None:
    stand.resource(text={"password": "do-not-show"})
    with pytest.raises(Wrong, match=r"^spec\.text: "):
        await stand.run()
    assert "do-not-show" not in stand.status["message"]


async def test_nothing_of_others_is_taken_over(stand: Stand) -> None:
    stand.resource()
    theirs = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "one", "namespace": "ns"}, "spec": {}}
    stand.api.put("deployments", theirs)
    with pytest.raises(Wrong, match="Deployment one exists and was not made by the operator"):
        await stand.run()
    assert stand.api.objects["deployments", "ns", "one"]["spec"] == {}


async def test_objects_of_a_former_resource_of_the_name_are_waited_for(stand: Stand) -> None:
    stand.resource()
    former = {"apiVersion": "x/v1", "kind": "Fake", "name": "one", "uid": "former", "controller": True}
    metadata = {"name": "one", "namespace": "ns", "ownerReferences": [former]}
    stand.api.put("deployments", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {}})
    with pytest.raises(Conflict, match="still being removed"):
        await stand.run()
    del stand.api.objects["deployments", "ns", "one"]
    await stand.run()
    assert stand.status["phase"] == "Initializing"


async def test_an_api_server_that_is_away_changes_no_status(stand: Stand) -> None:
    stand.resource()
    await stand.run()
    before = stand.status
    with stand.api.failing(503, path="/deployments"), pytest.raises(ApiUnavailable):
        await stand.run()
    assert stand.status == before


async def test_a_right_that_is_missing_is_said(stand: Stand) -> None:
    stand.resource()
    message = 'deployments.apps is forbidden: User "x" cannot patch resource "deployments"'
    with stand.api.failing(403, message, method="PATCH", path="/deployments"), pytest.raises(Forbidden):
        await stand.run()
    assert stand.status["message"] == f"the operator may not patch deployments: {message}"


async def test_what_the_api_server_refuses_is_said(stand: Stand) -> None:
    stand.resource()
    message = 'Deployment "one" is invalid: spec.selector: field is immutable'
    with stand.api.failing(422, message, method="PATCH", path="/deployments"), pytest.raises(Wrong):
        await stand.run()
    assert stand.status["message"] == message


async def test_a_lost_race_for_the_status_is_tried_again(stand: Stand) -> None:
    stand.resource()
    with stand.api.failing(409, "modified", path="/status"), pytest.raises(Conflict):
        await stand.run()
    await stand.run()
    assert stand.status["phase"] == "Initializing"


async def test_an_event_that_cannot_be_posted_is_no_failure(stand: Stand) -> None:
    stand.resource()
    with stand.api.failing(500, path="/events"):
        assert await stand.run()


async def test_what_an_older_operator_set_becomes_ours_once(stand: Stand) -> None:
    resource = stand.resource()
    owner = {
        "apiVersion": "x/v1",
        "kind": "Fake",
        "name": "one",
        "uid": resource["metadata"]["uid"],
        "controller": True,
    }

    def entry(manager: str, fields: Json, **more: str) -> Json:
        return {"manager": manager, "operation": "Update", "apiVersion": "apps/v1", "fieldsV1": fields, **more}

    controller = entry("kube-controller-manager", {"f:metadata": {"f:annotations": {}}})
    status = entry("someone", {"f:status": {}}, subresource="status")
    managed = [
        entry("manager", {"f:spec": {"f:text": {}}}),
        entry("kubectl-edit", {"f:spec": {"f:other": {}}, "f:data": {}}),
        controller,
        status,
    ]
    metadata = {"name": "one", "namespace": "ns", "ownerReferences": [owner], "managedFields": managed}
    former = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"text": "former"}}
    stand.api.put("deployments", former)
    await stand.run()
    ours, *rest = stand.api.objects["deployments", "ns", "one"]["metadata"]["managedFields"]
    assert (ours["manager"], ours["operation"]) == ("imaging-ingestion-operator", "Apply")
    assert ours["fieldsV1"] == {"f:spec": {"f:text": {}, "f:other": {}}, "f:data": {}}
    assert rest == [controller, status]
    stand.change(text="b")
    await stand.run()
    assert [path for _, path in stand.api.writes()].count("/apis/apps/v1/namespaces/ns/deployments/one") == 1
