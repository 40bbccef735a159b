"""YAML in, YAML out: each kind's objects, plain, on Knative and with KEDA; and what holds for all of them."""

import copy
import re
from typing import Any

import pytest

from imaging_operator.builders.names import CHECKSUM
from imaging_operator.kinds import KINDS
from imaging_operator.kinds.common import Json
from support.operator_kinds import Case, case, cases, dump, wanted

CASES = [pytest.param(each, id=each.name) for each in cases()]
REBUILD = "objects changed: PYTHONPATH=tests python -m support.operator_kinds, and look at the difference"


def pods(objects: list[Json]) -> list[Json]:
    """Pod specs."""
    return [each["spec"]["template"]["spec"] for each in objects if "template" in each.get("spec", {})]


def containers(objects: list[Json]) -> list[Json]:
    """Containers of all pods."""
    return [each for pod in pods(objects) for each in pod["containers"]]


@pytest.mark.parametrize("it", CASES)
def test_the_objects_are_those_that_were_written(it: Case) -> None:
    assert dump(it.build()) == it.out.read_text("utf-8"), REBUILD


@pytest.mark.parametrize("it", CASES)
def test_building_changes_nothing_and_repeats(it: Case) -> None:
    resource = it.wanted()
    kind, before = KINDS[resource.kind], copy.deepcopy(resource.found)
    first = dump(kind.build(resource, it.settings))
    kind.status(resource, it.settings, it.build())
    kind.durable(resource, it.settings)
    assert resource.found == before
    assert dump(kind.build(resource, it.settings)) == first


@pytest.mark.parametrize("it", CASES)
def test_objects_are_labelled_and_distinct(it: Case) -> None:
    objects, resource = it.build(), it.documents()[0]
    names = [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(names)) == len(names)
    for each in objects:
        assert each["metadata"]["namespace"] == resource["metadata"]["namespace"]
        assert each["metadata"]["labels"]["imaging-ingestion.alvearie.org/kind"] == resource["kind"]
        assert each["metadata"]["labels"]["imaging-ingestion.alvearie.org/owner"] == resource["metadata"]["name"]
        assert each["metadata"]["name"].startswith(f"{resource['metadata']['name']}-")


@pytest.mark.parametrize("it", CASES)
def test_environment_is_sorted_text_and_holds_no_secret(it: Case) -> None:
    secrets = [each for each in it.documents() if each["kind"] == "Secret"]
    values = {value for each in secrets for value in (each.get("data") or {}).values()}
    for container in containers(it.build()):
        names = [each["name"] for each in container.get("env", [])]
        assert names == sorted(set(names))
        assert all(isinstance(each.get("value", ""), str) for each in container.get("env", []))
        assert not {each.get("value") for each in container.get("env", [])} & values


@pytest.mark.parametrize("it", CASES)
def test_every_volume_is_mounted_and_every_mount_has_a_volume(it: Case) -> None:
    for pod in pods(it.build()):
        named = [each["name"] for each in pod["volumes"]]
        mounted = {each["name"] for container in pod["containers"] for each in container["volumeMounts"]}
        assert set(named) == mounted
        assert len(set(named)) == len(named)


@pytest.mark.parametrize("it", CASES)
def test_services_lead_to_ports_of_pods(it: Case) -> None:
    objects = it.build()
    by_app = {
        each["spec"]["template"]["metadata"]["labels"]["app"]: each for each in objects if each["kind"] == "Deployment"
    }
    for each in objects:
        if each["apiVersion"] == "v1" and each["kind"] == "Service":
            ports = containers([by_app[each["spec"]["selector"]["app"]]])[0]["ports"]
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= {port["name"] for port in ports}


@pytest.mark.parametrize("it", CASES)
def test_pods_keep_to_the_restricted_pod_security_standard(it: Case) -> None:
    for each in it.build():
        if each["kind"] != "Deployment":
            continue
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert set(volume_types(pod)) <= {"configMap", "secret", "projected", "emptyDir"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def volume_types(pod: Json) -> list[str]:
    """What the volumes are made of."""
    return [key for volume in pod["volumes"] for key in volume if key != "name"]


@pytest.mark.parametrize("it", CASES)
def test_pods_outlive_the_drain(it: Case) -> None:
    for each in it.build():
        if each["kind"] != "Deployment":
            continue
        pod = each["spec"]["template"]["spec"]
        drains = [
            float(variable["value"])
            for container in pod["containers"]
            for variable in container.get("env", [])
            if variable["name"] == "DRAIN_SECONDS"
        ]
        assert pod["terminationGracePeriodSeconds"] >= max(drains) + 5 + 3


def names_of(objects: list[Json], kind: str) -> list[str]:
    """Names of the objects of one kind."""
    return [each["metadata"]["name"] for each in objects if each["kind"] == kind]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("plain/event-driven-ingestion", "Service", ["core-event-processor", "core-broker"]),
        ("plain/dicomweb-ingestion-service", "Service", ["space1-stow", "space1-wado"]),
        ("plain/dicomweb-ingestion-service", "Deployment", ["space1-stow", "space1-wado"]),
        ("plain/instance-binding-stow", "Deployment", ["archive-instance-binding"]),
        ("plain/study-binding", "Deployment", ["ehr-study-binding"]),
        ("plain/dimse-ingestion-service", "ConfigMap", ["space1-ingestion-nats-config", "space1-dimse-config"]),
        ("plain/dimse-ingestion-service", "Deployment", ["space1-dimse"]),
        ("plain/dimse-proxy", "ConfigMap", ["site-proxy-nats-config", "site-proxy-config"]),
        ("plain/dimse-proxy", "Service", ["site-dimse-proxy"]),
        ("plain/event-bridge-hub", "ConfigMap", ["wide-bridge-nats-config", "wide-edge-location-config"]),
        ("plain/event-bridge-edge", "ConfigMap", ["wide-bridge-nats-config"]),
        ("plain/event-bridge-hub", "Service", ["wide-event-bridge"]),
        ("knative/event-driven-ingestion", "Service", ["core-event-processor"]),
        ("knative/event-driven-ingestion", "Broker", ["core-broker"]),
        ("knative/event-driven-ingestion", "Trigger", ["core-image-stored"]),
        ("knative/event-driven-ingestion", "SinkBinding", ["core-event-processor-sink-binding"]),
        ("knative/dicomweb-ingestion-service", "Service", ["space1-wado", "space1-stow"]),
        ("knative/dicomweb-ingestion-service", "SinkBinding", ["space1-stow-sink-binding"]),
        ("knative/instance-binding", "Service", ["archive-instance-binding"]),
        ("knative/instance-binding", "Trigger", ["archive-instance-trigger"]),
        ("knative/study-binding", "Trigger", ["ehr-study-trigger"]),
        ("knative/study-binding", "SinkBinding", []),
        ("keda/instance-binding-c-store", "HorizontalPodAutoscaler", []),
        ("keda/instance-binding-c-store", "ScaledObject", ["archive-instance-binding"]),
        ("keda/dimse-ingestion-service", "ScaledObject", ["space1-dimse"]),
    ],
)
def test_names_are_those_that_others_rely_on(name: str, kind: str, expected: list[str]) -> None:
    assert names_of(case(name).build(), kind) == expected


def test_scaling_by_consumer_lag_names_stream_and_consumer() -> None:
    def trigger(name: str) -> dict[str, Any]:
        (scaled,) = [each for each in case(name).build() if each["kind"] == "ScaledObject"]
        return dict(scaled["spec"]["triggers"][0]["metadata"])

    assert trigger("keda/instance-binding-c-store") == {
        "account": "$G",
        "consumer": "to-pacs",
        "lagThreshold": "100",
        "natsServerMonitoringEndpoint": "nats.messaging.svc:8222",
        "stream": "imaging_core-events",
    }
    relay = trigger("keda/dimse-ingestion-service")
    assert (relay["stream"], relay["consumer"]) == ("DIMSE-B-store", "relay")


def test_an_autoscaled_deployment_does_not_set_replicas() -> None:
    for each in case("plain/instance-binding-c-store").build():
        if each["kind"] == "Deployment":
            assert "replicas" not in each["spec"]
        if each["kind"] == "HorizontalPodAutoscaler":
            assert (each["spec"]["minReplicas"], each["spec"]["maxReplicas"]) == (1, 3)


def checksum_of(objects: list[Json]) -> set[str]:
    """The checksums on the pods."""
    return {
        each["spec"]["template"]["metadata"]["annotations"][CHECKSUM]
        for each in objects
        if "template" in each.get("spec", {})
    }


READ_AGAIN = ("dimse-tls", "modalities")
"""Certificates of DICOM connections, which the pods read again without losing an association."""


@pytest.mark.parametrize("it", CASES)
def test_a_changed_secret_or_config_map_rolls_the_pods(it: Case) -> None:
    resource, *others = it.documents()
    kind, before = KINDS[resource["kind"]], checksum_of(it.build())
    for number, other in enumerate(others):
        if other["kind"] not in ("Secret", "ConfigMap"):
            continue
        changed = {**other, "data": {**(other.get("data") or {}), "ANOTHER_KEY": "MQ=="}}
        documents = [*others[:number], changed, *others[number + 1 :]]
        after = checksum_of(list(kind.build(wanted(resource, documents, it.features), it.settings)))
        name = other["metadata"]["name"]
        if name in READ_AGAIN:
            assert before == after, name
        else:
            assert not before & after, name


def test_labels_of_a_secret_do_not_roll_the_pods() -> None:
    it = case("plain/event-driven-ingestion")
    resource, config, secret = it.documents()
    labelled = {**secret, "metadata": {**secret["metadata"], "resourceVersion": "7", "labels": {"a": "b"}}}
    objects = KINDS[resource["kind"]].build(wanted(resource, [config, labelled]), it.settings)
    assert checksum_of(list(objects)) == checksum_of(it.build())


def test_making_the_capability_lists_does_not_roll_the_pods() -> None:
    it = case("plain/dimse-proxy")
    resource, objects = it.documents()[0], it.build()
    (made,) = [each for each in objects if each["metadata"]["name"] == "site-proxy-config"]
    again = list(KINDS["DimseProxy"].build(wanted(resource, [made]), it.settings))
    assert checksum_of(again) == checksum_of(objects)
    edited = {**made, "data": {**made["data"], "IMAGE_TSUIDS": "ImplicitVRLittleEndian:1.2.840.10008.1.2\n"}}
    assert checksum_of(list(KINDS["DimseProxy"].build(wanted(resource, [edited]), it.settings))) != checksum_of(objects)


def test_the_capability_lists_are_those_of_the_interface() -> None:
    (lists,) = [each for each in case("plain/dimse-proxy").build() if each["metadata"]["name"] == "site-proxy-config"]
    assert lists["metadata"]["annotations"] == {"imaging-ingestion.alvearie.org/create-only": "true"}
    for key, count in (("IMAGE_CUIDS", 158), ("IMAGE_TSUIDS", 11)):
        lines = lists["data"][key].splitlines()
        assert len(lines) == count
        assert all(re.fullmatch(r"[A-Za-z0-9]+:1\.2\.840\.10008[.0-9]+", line) for line in lines)
