"""The CRDs on a real API server: what it stores, what it drops, what it refuses and with which words."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml

from cluster.kubectl import Kubectl, KubectlError, until
from imaging_operator.specs.common import DeploymentGroup, ServiceGroup
from imaging_operator.specs.connections import Authorities, ClientTls, DatabaseTls, Exposure, TargetTls
from imaging_operator.specs.crd import crd
from imaging_operator.specs.examples import EXAMPLES
from imaging_operator.specs.model import rules_of
from imaging_operator.specs.resources import CATEGORY, GROUP, RESOURCES, VERSION
from support.complete_specs import (
    BRIDGE,
    BY_KIND,
    COMPLETE,
    DIS,
    EDI,
    IB,
    IN_EDI,
    PROXY,
    SB,
    SERVICE,
    WEB,
    WORKLOAD,
    Json,
)

# What the interface allows, and nobody would write into an example.
ODD: list[tuple[str, Json]] = [
    (EDI, {}),
    (EDI, {"eventProcessor": {}, "imagePullSecrets": []}),
    (EDI, {"revisioningDelay": 0}),
    (EDI, {"revisioningDelay": -1}),
    (EDI, {"databaseConfigName": "", "databaseSecretName": "", "imagePullPolicy": ""}),
    (EDI, {"eventProcessor": {"minReplicas": 5, "maxReplicas": 0}}),
    (EDI, {"eventProcessor": {"minReplicas": 3, "maxReplicas": 3, "concurrency": 5_000_000_000}}),
    (WEB, IN_EDI),
    (WEB, {"dicomEventDrivenIngestionName": ""}),
    (WEB, {**IN_EDI, "providerName": "Radiologie München / 1", "stowService": {}, "wadoService": {}}),
    (WEB, {**IN_EDI, "imagePullSecrets": [{}, {"name": "a"}, {"name": "a"}]}),
    (IB, {**IN_EDI, "instanceBinding": {}}),
    (SB, {**IN_EDI, "studyBinding": {"image": ""}}),
    (DIS, IN_EDI),
    (DIS, {**IN_EDI, "natsUrl": "tls://a:4222,b:4222", "natsSubjectRoot": "", "dimseService": {}}),
    (DIS, {**IN_EDI, "jetStreamReceiveDomain": "*"}),
    (DIS, {**IN_EDI, "jetStreamReceiveDomain": "north, south,*"}),
    (PROXY, {}),
    (PROXY, {"natsSubjectChannel": "", "natsTokenSecret": "", "proxy": {}}),
    (PROXY, {"natsSubjectRoot": "region/north.site-1"}),
    (PROXY, {"applicationEntityTitle": "a title nobody calls, without a target"}),
    (PROXY, {"targetDimseHost": "pacs", "targetDimsePort": 0}),
    (BRIDGE, {**IN_EDI, "role": "hub"}),
    (BRIDGE, {**IN_EDI, "role": "hub", "edgeMailbox": "of a former edge"}),
    (BRIDGE, {**IN_EDI, "role": "edge", "edgeMailbox": "site.1"}),
]
EDGE: Json = {**IN_EDI, "role": "edge"}
CA_TWICE: Json = {"caSecretName": "a", "caConfigMapName": "b"}
# (kind, spec, words of the refusal)
RULES: list[tuple[str, Json, str]] = [
    (BRIDGE, EDGE, "edgeMailbox is needed when role is edge"),
    (BRIDGE, {**EDGE, "edgeMailbox": ""}, "edgeMailbox is needed when role is edge"),
    *(
        (BRIDGE, {**EDGE, "edgeMailbox": mailbox}, "edgeMailbox is part of a NATS subject: not hub, and without spaces")
        for mailbox in ("hub", "north site", "north\tsite", "*", "north.>")
    ),
    (EDI, {"eventProcessor": {"minReplicas": 2, "maxReplicas": 1}}, "minReplicas is larger than maxReplicas"),
    (WEB, {**IN_EDI, "stowService": {"minReplicas": 2, "maxReplicas": 1}}, "minReplicas is larger than maxReplicas"),
    (WEB, {**IN_EDI, "wadoService": {"minReplicas": 2, "maxReplicas": 1}}, "minReplicas is larger than maxReplicas"),
    (IB, {**IN_EDI, "instanceBinding": {"minReplicas": 9, "maxReplicas": 8}}, "minReplicas is larger than maxReplicas"),
    (SB, {**IN_EDI, "studyBinding": {"minReplicas": 9, "maxReplicas": 8}}, "minReplicas is larger than maxReplicas"),
    (DIS, {**IN_EDI, "dimseService": {"minReplicas": 9, "maxReplicas": 8}}, "minReplicas is larger than maxReplicas"),
    (PROXY, {"proxy": {"minReplicas": 9, "maxReplicas": 8}}, "minReplicas is larger than maxReplicas"),
    (BRIDGE, {**IN_EDI, "role": "hub", "eventBridge": {"minReplicas": 9, "maxReplicas": 8}}, "minReplicas is larger"),
    *(
        (
            kind,
            {**spec, "natsTls": {"secretName": "certificate"}, "natsSecure": False},
            "natsTls needs natsSecure: true",
        )
        for kind, spec in ((EDI, {}), (DIS, IN_EDI), (PROXY, {}), (BRIDGE, {**IN_EDI, "role": "hub"}))
    ),
    *(
        (kind, {**spec, "natsTls": CA_TWICE, "natsSecure": True}, "name the authorities once")
        for kind, spec in ((EDI, {}), (DIS, IN_EDI), (PROXY, {}), (BRIDGE, {**IN_EDI, "role": "hub"}))
    ),
    (EDI, {"databaseTls": {**CA_TWICE, "mode": "verify-ca"}}, "name the authorities once"),
    (EDI, {"databaseTls": {}}, "mode verify-ca or verify-full needs caSecretName or caConfigMapName"),
    (
        EDI,
        {"databaseTls": {"mode": "verify-ca", "caSecretName": ""}},
        "mode verify-ca or verify-full needs caSecretName",
    ),
    (WEB, {**IN_EDI, "bucketTls": CA_TWICE}, "name the authorities once"),
    (DIS, {**IN_EDI, "bucketTls": CA_TWICE}, "name the authorities once"),
    (IB, {**IN_EDI, "targetTls": CA_TWICE}, "name the authorities once"),
    (SB, {**IN_EDI, "targetTls": CA_TWICE}, "name the authorities once"),
    (WEB, {**IN_EDI, "knative": True, "ingress": {"host": "a.example"}}, "ingress is not used with knative: true"),
    (DIS, {**IN_EDI, "service": {}}, "service needs direct: true"),
    (DIS, {**IN_EDI, "direct": True, "service": {"nodePort": 30104}}, "nodePort needs type NodePort or LoadBalancer"),
    (PROXY, {"service": {"nodePort": 30104}}, "nodePort needs type NodePort or LoadBalancer"),
    (
        PROXY,
        {"service": {"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        "loadBalancerSourceRanges needs type LoadBalancer",
    ),
    (
        PROXY,
        {"targetDimseHost": "pacs", "applicationEntityTitle": "SEVENTEEN_LETTERS"},
        "applicationEntityTitle is longer than 16 characters, so no target can have it",
    ),
]
BOUNDS: list[tuple[str, Json, str]] = [
    (BRIDGE, {**IN_EDI, "role": "spoke"}, 'supported values: "hub", "edge"'),
    (BRIDGE, IN_EDI, "spec.role: Required value"),
    (WEB, {}, "spec.dicomEventDrivenIngestionName: Required value"),
    (PROXY, {"natsSubjectChannel": "C"}, 'supported values: "", "A", "B"'),
    (PROXY, {"natsSubjectRoot": "a b"}, "spec.natsSubjectRoot"),
    (PROXY, {"natsSubjectRoot": "a.>"}, "spec.natsSubjectRoot"),
    (PROXY, {"targetDimsePort": 65536}, "less than or equal to 65535"),
    (PROXY, {"targetDimsePort": "104"}, "must be of type integer"),
    (PROXY, {"deliveryMode": "hopeful"}, 'supported values: "durable", "confirmed"'),
    (PROXY, {"streamReplicas": 6}, "less than or equal to 5"),
    (PROXY, {"proxy": {"replicas": -1}}, "greater than or equal to 0"),
    (PROXY, {"workers": 0}, "greater than or equal to 1"),
    (DIS, {**IN_EDI, "workers": 65}, "less than or equal to 64"),
    (WEB, {**IN_EDI, "workers": 1.5}, "must be of type integer"),
    (BRIDGE, {**IN_EDI, "role": "hub", "streamReplicas": 0}, "greater than or equal to 1"),
    (EDI, {"jetStreamDomain": "a.b"}, "spec.jetStreamDomain"),
    (DIS, {**IN_EDI, "jetStreamReceiveDomain": "north,,south"}, "spec.jetStreamReceiveDomain"),
    (PROXY, {"allowedCallingAETitles": ["SEVENTEEN_LETTERS"]}, "Too long"),
    (DIS, {**IN_EDI, "applicationEntityTitle": "SEVENTEEN_LETTERS"}, "Too long"),
    (EDI, {"imagePullPolicy": "Sometimes"}, "supported values"),
    (EDI, {"eventProcessor": {"concurrency": -1}}, "greater than or equal to 0"),
    (EDI, {"retention": "Burn"}, 'supported values: "Retain", "Delete"'),
    (EDI, {"resources": {"limits": {"memory": "much"}}}, "spec.resources.limits.memory"),
    (EDI, {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "Duplicate value"),
    (WEB, {**IN_EDI, "ingress": {}}, "spec.ingress.host: Required value"),
    (WEB, {**IN_EDI, "externalEndpoint": "images.example.org"}, "spec.externalEndpoint"),
]
# (kind, name, more of the spec, words of the refusal)
NAMES: list[tuple[str, str, Json, str]] = [
    (EDI, "a" * 48, {}, "the name is longer than 47 characters"),
    (WEB, "a" * 59, {}, "the name is longer than 58 characters"),
    (IB, "a" * 47, {}, "the name is longer than 46 characters"),
    (SB, "a" * 50, {}, "the name is longer than 49 characters"),
    (DIS, "a" * 58, {}, "the name is longer than 57 characters"),
    (PROXY, "a" * 52, {}, "the name is longer than 51 characters"),
    (BRIDGE, "a" * 51, {}, "the name is longer than 50 characters"),
    *(
        (kind, name, {}, "Services are named after it")
        for kind in (EDI, WEB, IB, SB, PROXY, BRIDGE)
        for name in ("1st", "north.site")
    ),
    (DIS, "1st", {"direct": True}, "with direct: true a Service is named after it"),
]
LONGEST = {EDI: 47, WEB: 58, IB: 46, SB: 49, DIS: 57, PROXY: 51, BRIDGE: 50}
NEW: Json = {
    "resources": {"requests": {"cpu": 1, "memory": "128Mi"}, "limits": {"memory": "1.5Gi"}},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "imaging", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
    "podAnnotations": {"a": "b"},
    "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/images"},
    "env": [{"name": "LOG_LEVEL", "value": "debug"}, {"name": "EMPTY"}],
    "serviceConfigName": "overrides",
    "networkPolicy": False,
}


@pytest.fixture(scope="module")
def trial(cluster: Kubectl) -> Iterator[str]:
    """A namespace for dry runs; nothing is kept in it."""
    name = cluster.new_namespace()
    yield name
    cluster.delete("namespace", name, wait=False)


def resource(kind: str, spec: Json | None, name: str = "it") -> Json:
    """A resource; None leaves the spec out."""
    head: Json = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}}
    return head if spec is None else head | {"spec": spec}


def stored(cluster: Kubectl, namespace: str, wanted: Json, *options: str) -> Json:
    """What the API server would keep of a resource."""
    text = cluster(
        "create", "--dry-run=server", "-o", "json", "-n", namespace, *options, "-f", "-", stdin=json.dumps(wanted)
    )
    return dict(json.loads(text))


def contains(whole: Any, part: Any) -> bool:
    """Everything of ``part`` is in ``whole``, at its place and unchanged."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    return bool(whole == part)


@pytest.mark.parametrize(("kind", "spec"), COMPLETE.items())
def test_every_field_of_the_interface_is_kept(cluster: Kubectl, trial: str, kind: str, spec: Json) -> None:
    kept = stored(cluster, trial, resource(kind, spec), "--validate=strict")
    assert contains(kept["spec"], spec)


@pytest.mark.parametrize(("kind", "spec"), ODD)
def test_odd_values_are_kept(cluster: Kubectl, trial: str, kind: str, spec: Json) -> None:
    kept = stored(cluster, trial, resource(kind, spec), "--validate=strict")
    assert contains(kept["spec"], spec)
    parsed = BY_KIND[kind].spec.parse(kept["spec"])
    assert parsed == BY_KIND[kind].spec.parse(spec)


@pytest.mark.parametrize("kind", COMPLETE)
def test_new_fields_of_every_kind_are_kept(cluster: Kubectl, trial: str, kind: str) -> None:
    kept = stored(cluster, trial, resource(kind, COMPLETE[kind] | NEW), "--validate=strict")
    assert contains(kept["spec"], NEW)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_examples_of_the_reference_are_accepted(cluster: Kubectl, trial: str, kind: str) -> None:
    example = yaml.safe_load(EXAMPLES[kind])
    kept = stored(cluster, trial, resource(kind, example["spec"], example["metadata"]["name"]), "--validate=strict")
    assert contains(kept["spec"], example["spec"])


@pytest.mark.parametrize("kind", COMPLETE)
def test_unknown_fields_are_dropped(cluster: Kubectl, trial: str, kind: str) -> None:
    group = next(name for name, value in COMPLETE[kind].items() if value in (SERVICE, WORKLOAD))
    wanted = deepcopy(COMPLETE[kind]) | {"colour": "red"}
    wanted[group]["colour"] = "red"
    kept = stored(cluster, trial, resource(kind, wanted), "--validate=ignore")
    assert contains(kept["spec"], COMPLETE[kind])
    assert "colour" not in json.dumps(kept)


@pytest.mark.parametrize(("kind", "spec", "words"), [*RULES, *BOUNDS])
def test_what_could_never_work_is_refused(cluster: Kubectl, trial: str, kind: str, spec: Json, words: str) -> None:
    with pytest.raises(KubectlError, match="is invalid") as refused:
        stored(cluster, trial, resource(kind, spec))
    assert words in str(refused.value)


@pytest.mark.parametrize(("kind", "name", "more", "words"), NAMES)
def test_names_of_which_no_service_can_be_made_are_refused(
    cluster: Kubectl, trial: str, kind: str, name: str, more: Json, words: str
) -> None:
    with pytest.raises(KubectlError, match="is invalid") as refused:
        stored(cluster, trial, resource(kind, COMPLETE[kind] | more, name))
    assert words in str(refused.value)


@pytest.mark.parametrize(("kind", "length"), LONGEST.items())
def test_the_longest_name_is_accepted(cluster: Kubectl, trial: str, kind: str, length: int) -> None:
    stored(cluster, trial, resource(kind, COMPLETE[kind], "a" * length))


def test_a_dimse_ingestion_without_service_may_have_any_name(cluster: Kubectl, trial: str) -> None:
    stored(cluster, trial, resource(DIS, COMPLETE[DIS], "1st.site"))


def test_every_rule_is_refused_in_a_test() -> None:
    groups = (ServiceGroup, DeploymentGroup, Authorities, ClientTls, DatabaseTls, TargetTls, Exposure)
    models = [*groups, *(resource.spec for resource in RESOURCES)]
    messages = {rule.message for model in models for rule in rules_of(model)}
    messages |= {rule.message for resource in RESOURCES for rule in resource.name_rules}
    seen = {words for *_, words in (*RULES, *NAMES)}
    assert {message for message in messages if not any(message.startswith(words) for words in seen)} == set()


@pytest.mark.parametrize("kind", COMPLETE)
def test_columns_short_names_and_category(cluster: Kubectl, namespace: str, kind: str) -> None:
    shown = BY_KIND[kind]
    cluster.create(resource(kind, COMPLETE[kind]), namespace=namespace)
    status = {"phase": "Reconciling", "message": "All resource are ready", "ready": True}
    cluster.patch(shown.plural, "it", {"status": status}, namespace, subresource="status")
    heads, row = (line.split() for line in cluster("get", shown.short_name, "-n", namespace).splitlines())
    assert heads[:3] == ["NAME", "READY", "PHASE"]
    assert heads[-1] == "AGE"
    assert row[:3] == ["it", "true", "Reconciling"]
    assert "All resource are ready" in cluster("get", shown.plural, "-n", namespace, "-o", "wide")
    assert f"{shown.kind.lower()}.{GROUP}/it" in cluster("get", CATEGORY, "-n", namespace, "-o", "name")


@pytest.mark.parametrize("kind", COMPLETE)
def test_the_status_is_kept_apart_from_the_spec(cluster: Kubectl, namespace: str, kind: str) -> None:
    shown = BY_KIND[kind]
    status: Json = {
        "phase": "Failing",
        "message": "Missing Database Secret",
        "ready": False,
        "secondaryResources": {"Secret": ["a", "b"]},
        "observedGeneration": 1,
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "MissingReference",
                "message": "Missing Database Secret",
                "lastTransitionTime": "2026-11-21T07:00:00Z",
                "observedGeneration": 1,
            }
        ],
    }
    texts = [info.alias for name, info in shown.status.model_fields.items() if info.annotation == str | None]
    status |= {str(name): "text" for name in texts} | ({"replicas": 1} if shown.scaled else {})
    cluster.create(resource(kind, COMPLETE[kind]) | {"status": status}, namespace=namespace)
    assert "status" not in (cluster.get(shown.plural, "it", namespace) or {})
    cluster.patch(shown.plural, "it", {"status": status}, namespace, subresource="status")
    kept = cluster.get(shown.plural, "it", namespace)
    assert kept is not None
    assert kept["status"] == status
    assert kept["metadata"]["generation"] == 1
    assert shown.status.model_validate(status).model_dump(by_alias=True, exclude_unset=True, mode="json") == status


def test_a_status_needs_phase_message_and_ready(cluster: Kubectl, namespace: str) -> None:
    cluster.create(resource(EDI, {}), namespace=namespace)
    status = {"phase": "", "message": ""}
    with pytest.raises(KubectlError, match=r"status\.ready: Required value"):
        cluster.patch(BY_KIND[EDI].plural, "it", {"status": status}, namespace, subresource="status")


@pytest.mark.parametrize("kind", [resource.kind for resource in RESOURCES if resource.scaled])
def test_scale(cluster: Kubectl, namespace: str, kind: str) -> None:
    shown = BY_KIND[kind]
    spec = {name: value for name, value in COMPLETE[kind].items() if name != shown.scaled}
    cluster.create(resource(kind, spec), namespace=namespace)
    cluster("scale", f"{shown.plural}.{GROUP}/it", "-n", namespace, "--current-replicas=1", "--replicas=3")
    status = {"phase": "Reconciling", "message": "", "ready": True, "replicas": 2, "selector": "app=it"}
    cluster.patch(shown.plural, "it", {"status": status}, namespace, subresource="status")
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{shown.plural}/it/scale"
    scale = json.loads(cluster("get", "--raw", path))
    assert (scale["spec"], scale["status"]) == ({"replicas": 3}, {"replicas": 2, "selector": "app=it"})
    kept = cluster.get(shown.plural, "it", namespace)
    assert kept is not None
    assert kept["spec"][shown.scaled]["replicas"] == 3


def test_a_resource_stored_before_the_rules_can_still_be_changed(cluster: Kubectl, namespace: str) -> None:
    """As after an upgrade from CRDs that checked nothing: our CRD in a group of its own, first without its checks."""
    group = f"{namespace}.example.org"
    new = crd(BY_KIND[BRIDGE])
    target = new["metadata"]["name"] = f"{BY_KIND[BRIDGE].plural}.{group}"
    new["spec"] |= {"group": group, "names": new["spec"]["names"] | {"categories": [], "shortNames": []}}
    old = resource(BRIDGE, {**EDGE, "imagePullPolicy": "sometimes"}, "1st") | {"apiVersion": f"{group}/{VERSION}"}
    old["metadata"]["finalizers"] = ["example.org/hold"]
    try:
        cluster.apply(_unchecked(new))
        cluster("wait", "--for=condition=Established", f"crd/{target}", "--timeout=60s")
        cluster.create(old, namespace=namespace)
        cluster.apply(new)
        until(lambda: _refuses(cluster, namespace, old | {"metadata": {"name": "another"}}))
        status = {"phase": "Failing", "message": "edgeMailbox is missing", "ready": False}
        cluster.patch(target, "1st", {"status": status}, namespace, subresource="status")
        cluster.patch(target, "1st", {"metadata": {"finalizers": None}}, namespace)
        kept = cluster.get(target, "1st", namespace)
        assert kept is not None
        assert kept["status"] == status
        assert kept["spec"]["imagePullPolicy"] == "sometimes"
        cluster.delete(target, "1st", namespace)
    finally:
        cluster.delete("crd", target)


def _refuses(cluster: Kubectl, namespace: str, wanted: Json) -> bool:
    try:
        stored(cluster, namespace, wanted)
    except KubectlError as refused:
        return "is invalid" in str(refused)
    return False


def _unchecked(whole: Any) -> Any:
    """Names and types only."""
    drop = {"enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "maxItems", "x-kubernetes-validations"}
    if isinstance(whole, dict):
        return {key: _unchecked(value) for key, value in whole.items() if key not in drop}
    return [_unchecked(value) for value in whole] if isinstance(whole, list) else whole
