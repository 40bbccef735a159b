"""Status fields from observed objects, and what outlives a resource."""

from typing import Any

import pytest

from imaging_operator.kinds import KINDS
from imaging_operator.kinds.common import Json
from support.operator_kinds import case


def status(name: str, observed: list[Json] | None = None) -> Json:
    """The status fields of a case whose objects are all there."""
    it = case(name)
    resource = it.wanted()
    return KINDS[resource.kind].status(resource, it.settings, it.build() if observed is None else observed)


def with_status(name: str, kind: str, named: str, value: Json) -> list[Json]:
    """A case's objects, one of which has a status."""
    objects = case(name).build()
    for each in objects:
        if (each["kind"], each["metadata"]["name"]) == (kind, named):
            each["status"] = value
    return objects


def durable(name: str) -> list[str]:
    """What a case leaves behind."""
    it = case(name)
    resource = it.wanted()
    return list(KINDS[resource.kind].durable(resource, it.settings))


def test_the_broker_stands_at_its_service() -> None:
    assert status("plain/event-driven-ingestion") == {
        "brokerEndpoint": "http://core-broker.imaging.svc.cluster.local",
        "eventProcessorEndpoint": "http://core-event-processor.imaging.svc.cluster.local",
        "eventStream": "imaging_core",
    }
    assert status("plain/event-driven-ingestion", []) == {}


def test_the_broker_of_knative_says_where_it_is() -> None:
    name, address = "knative/event-driven-ingestion", "http://broker-ingress.knative-eventing.svc/imaging/core-broker"
    before = "http://broker-ingress.knative-eventing.svc.cluster.local/imaging/core-broker"
    assert status(name) == {"brokerEndpoint": before}  # as an earlier pass reported it
    observed = with_status(name, "Broker", "core-broker", {"address": {"url": address}})
    assert status(name, observed) == {"brokerEndpoint": address}


def test_dicomweb_addresses_inside_the_cluster() -> None:
    assert status("plain/dicomweb-ingestion-service") == {
        "stowServiceInternalEndpoint": "http://space1-stow.imaging.svc.cluster.local",
        "stowServiceExternalEndpoint": "http://space1-stow.imaging.svc.cluster.local",
        "wadoServiceInternalEndpoint": "http://space1-wado.imaging.svc.cluster.local",
        "wadoServiceExternalEndpoint": "http://space1-wado.imaging.svc.cluster.local",
    }


def test_dicomweb_addresses_at_an_ingress() -> None:
    found = status("plain/dicomweb-ingestion-service-all-fields")
    assert (
        found["stowServiceExternalEndpoint"] == found["wadoServiceExternalEndpoint"] == ("https://dicomweb.example.org")
    )


def test_dicomweb_addresses_of_knative() -> None:
    name = "knative/dicomweb-ingestion-service-first-pass"
    assert status(name) == {}
    observed = with_status(name, "Service", "space1-wado", {"url": "http://space1-wado.imaging.example.org"})
    assert status(name, observed) == {
        "wadoServiceInternalEndpoint": "http://space1-wado.imaging.svc.cluster.local",
        "wadoServiceExternalEndpoint": "http://space1-wado.imaging.example.org",
    }


def test_the_last_address_of_knative_stays_while_there_is_none() -> None:
    it = case("knative/dicomweb-ingestion-service")
    resource, *_ = it.documents()
    reported = resource["status"]["wadoServiceExternalEndpoint"]
    assert status(it.name) == {
        "wadoServiceInternalEndpoint": "http://space1-wado.imaging.svc.cluster.local",
        "wadoServiceExternalEndpoint": reported,
    }
    observed = with_status(it.name, "Service", "space1-wado", {"url": "http://other.example.org"})
    assert status(it.name, observed)["wadoServiceExternalEndpoint"] == "http://other.example.org"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "plain/instance-binding-stow",
            {"consumer": "archive-instance-binding", "target": "https://archive.example.org/dicomweb/studies"},
        ),
        ("plain/instance-binding-c-store", {"consumer": "to-pacs", "target": "dimse://PACS@pacs.example.org:104"}),
        ("plain/instance-binding-own-image", {"consumer": "archive-instance-binding"}),
        ("knative/instance-binding", {"target": "https://archive.example.org/dicomweb/studies"}),
        (
            "plain/study-binding",
            {"consumer": "ehr-study-binding", "target": "https://fhir.example.org/r4/ImagingStudy"},
        ),
    ],
)
def test_bindings_say_where_they_send_and_from_where(name: str, expected: dict[str, Any]) -> None:
    assert status(name) == expected


def test_no_credentials_of_a_target_are_shown() -> None:
    it = case("plain/instance-binding-stow")
    resource = it.wanted()
    resource.found["binding_config"]["data"]["STOW_ENDPOINT"] = "https://user:pw@a.example/studies?key=1"
    shown = KINDS[resource.kind].status(resource, it.settings, [])
    assert shown["target"] == "https://a.example/studies"


def test_listeners_and_their_scale() -> None:
    observed = with_status("plain/dimse-proxy", "Deployment", "site-dimse-proxy", {"replicas": 1})
    assert status("plain/dimse-proxy", observed) == {
        "dimseEndpoint": "site-dimse-proxy.imaging.svc.cluster.local:11112",
        "replicas": 1,
        "selector": "app=site-dimse-proxy",
    }
    assert status("plain/dimse-ingestion-service") == {"replicas": 0, "selector": "app=space1-dimse"}


def test_a_load_balancer_is_the_listeners_address() -> None:
    balanced = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}
    observed = with_status("plain/dimse-ingestion-service-direct", "Service", "space1-dimse", balanced)
    assert status("plain/dimse-ingestion-service-direct", observed)["dimseEndpoint"] == "192.0.2.7:11112"


def test_the_bridge_takes_events() -> None:
    assert status("plain/event-bridge-hub")["bridgeEndpoint"] == "http://wide-event-bridge.imaging.svc.cluster.local"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "plain/event-driven-ingestion",
            [
                "manifest database manifest-1",
                "JetStream stream imaging_core-events",
                "JetStream stream imaging_core-dead-letters",
            ],
        ),
        ("knative/event-driven-ingestion", ["manifest database manifest-1"]),
        ("plain/dicomweb-ingestion-service", ["bucket north-images"]),
        (
            "plain/instance-binding-stow",
            ["consumer archive-instance-binding of JetStream stream imaging_core-events"],
        ),
        ("knative/instance-binding", []),
        (
            "plain/dimse-proxy",
            [
                "JetStream stream DIMSE-A-store",
                "JetStream stream DIMSE-A-urgent",
                "JetStream stream DIMSE-A-domains",
                "JetStream stream DIMSE-A-dead-letters",
                "JetStream stream OBJ_DIMSE-A-instances",
            ],
        ),
        ("plain/dimse-ingestion-service-direct", []),
        (
            "plain/event-bridge-edge",
            ["JetStream stream wan-events-a533eb20", "JetStream stream wan-events-a533eb20-dead-letters"],
        ),
    ],
)
def test_what_outlives_a_resource_is_named(name: str, expected: list[str]) -> None:
    assert durable(name) == expected
