"""Plain or on Knative, and what cannot be built."""

import copy
from typing import Any

import pytest

from imaging_operator.errors import MissingReference, NotYet, Wrong
from imaging_operator.kinds import KINDS
from imaging_operator.kinds.common import Features, Json
from imaging_operator.settings import OperatorSettings
from support.operator_kinds import KNATIVE, NOTHING, case, wanted

SETTINGS = OperatorSettings(EVENTS_NATS_URL="nats://nats:4222")


def build(
    name: str,
    *,
    features: Features = NOTHING,
    settings: OperatorSettings = SETTINGS,
    edi: dict[str, Any] | None = None,
    **spec: Any,
) -> list[Json]:
    """A case with other members of the spec, and of the EDI's."""
    resource, *others = copy.deepcopy(case(name).documents())
    resource["spec"] |= spec
    for each in others:
        if each["kind"] == "DicomEventDrivenIngestion":
            each["spec"] |= edi or {}
    return list(KINDS[resource["kind"]].build(wanted(resource, others, features), settings))


def kinds_of(objects: list[Json]) -> set[str]:
    """Group and kind of each."""
    return {f"{each['apiVersion'].rpartition('/')[0]} {each['kind']}".strip() for each in objects}


@pytest.mark.parametrize(
    ("features", "settings", "spec"),
    [
        (NOTHING, SETTINGS, {"knative": True}),
        (Features(knative_serving=True), SETTINGS, {"knative": True}),
        (Features(knative_eventing=True), SETTINGS, {"knative": True}),
        (NOTHING, OperatorSettings(KNATIVE=True), {}),
    ],
)
def test_asked_for_and_absent_knative_is_waited_for(
    features: Features, settings: OperatorSettings, spec: dict[str, Any]
) -> None:
    with pytest.raises(NotYet, match=r"^Knative serving or eventing not installed in cluster$"):
        build("plain/event-driven-ingestion", features=features, settings=settings, **spec)


@pytest.mark.parametrize("name", ["knative/instance-binding", "knative/study-binding", "knative/event-bridge-hub"])
def test_the_others_wait_for_knative_as_well(name: str) -> None:
    with pytest.raises(NotYet, match="Knative serving or eventing not installed in cluster"):
        build(name, settings=OperatorSettings(KNATIVE=True))


def test_installed_knative_is_used_only_when_asked_for() -> None:
    assert "apps Deployment" in kinds_of(build("plain/event-driven-ingestion", features=KNATIVE))
    assert "eventing.knative.dev Broker" in kinds_of(
        build("plain/event-driven-ingestion", features=KNATIVE, knative=True)
    )
    plain = build(
        "plain/event-driven-ingestion",
        features=KNATIVE,
        settings=OperatorSettings(KNATIVE=True, EVENTS_NATS_URL="nats://n"),
        knative=False,
    )
    assert "apps Deployment" in kinds_of(plain)


@pytest.mark.parametrize("name", ["knative/event-driven-ingestion", "knative/dicomweb-ingestion-service"])
def test_producers_wait_for_the_address_of_their_broker(name: str) -> None:
    """A revision without K_SINK ends at once; its SinkBinding may take effect after it was made."""
    documents = copy.deepcopy(case(name).documents())
    for each in documents:
        if each["kind"] == "DicomEventDrivenIngestion":
            each["status"] = {}
    resource = documents[0]
    objects = KINDS[resource["kind"]].build(wanted(resource, documents[1:], KNATIVE), case(name).settings)
    made = {each["metadata"]["name"] for each in objects if each["apiVersion"] == "serving.knative.dev/v1"}
    assert made <= {"space1-wado"}
    (told,) = (
        each["spec"]["template"]["spec"]["containers"][0]["env"]
        for each in case(name).build()
        if each["apiVersion"] == "serving.knative.dev/v1" and each["metadata"]["name"] != "space1-wado"
    )
    broker = "http://broker-ingress.knative-eventing.svc.cluster.local/imaging/core-broker"
    assert {"name": "K_SINK", "value": broker} in told


@pytest.mark.parametrize(
    ("delay", "minimum", "retention"),
    [(45, "0", "75s"), (None, "0", "60s"), (3570, "0", "3600s"), (3571, "1", None), (86_400, "1", None)],
)
def test_the_event_processor_stays_until_revisions_are_announced(
    delay: int | None, minimum: str, retention: str | None
) -> None:
    resource, *others = copy.deepcopy(case("knative/event-driven-ingestion").documents())
    resource["spec"]["revisioningDelay"] = delay
    objects = KINDS[resource["kind"]].build(wanted(resource, others, KNATIVE), OperatorSettings(KNATIVE=True))
    (service,) = (each for each in objects if each["apiVersion"] == "serving.knative.dev/v1")
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/minScale"] == minimum
    assert annotations.get("autoscaling.knative.dev/scale-to-zero-pod-retention-period") == retention


@pytest.mark.parametrize("name", ["plain/instance-binding-stow", "plain/study-binding"])
def test_bindings_follow_their_edi(name: str) -> None:
    resource, *others = copy.deepcopy(case(name).documents())
    for each in others:
        if each["kind"] == "DicomEventDrivenIngestion":
            each["spec"]["knative"] = True
            each["status"] = {"brokerEndpoint": "http://broker"}
    objects = list(KINDS[resource["kind"]].build(wanted(resource, others, KNATIVE), SETTINGS))
    assert kinds_of(objects) == {"ServiceAccount", "serving.knative.dev Service", "eventing.knative.dev Trigger"}


def test_a_binding_on_knative_needs_its_edi_there() -> None:
    with pytest.raises(Wrong, match="set knative alike in both"):
        build("plain/instance-binding-stow", features=KNATIVE, knative=True)


def test_plain_pods_get_events_of_a_broker_posted() -> None:
    objects = case("knative/instance-binding-plain-pods").build()
    (trigger,) = [each for each in objects if each["kind"] == "Trigger"]
    assert trigger["spec"]["subscriber"]["ref"] == {
        "apiVersion": "v1",
        "kind": "Service",
        "name": "archive-instance-binding",
    }


def test_stow_waits_until_its_public_address_is_known() -> None:
    first = case("knative/dicomweb-ingestion-service-first-pass").build()
    then = case("knative/dicomweb-ingestion-service").build()
    assert [each["metadata"]["name"] for each in first if each["kind"] == "Service"] == ["space1-wado"]
    assert [each["metadata"]["name"] for each in then if each["kind"] == "Service"] == ["space1-wado", "space1-stow"]


def test_a_given_public_address_needs_no_waiting() -> None:
    objects = build(
        "knative/dicomweb-ingestion-service-first-pass",
        features=KNATIVE,
        settings=OperatorSettings(KNATIVE=True),
        externalEndpoint="https://dicomweb.example.org/space1/",
    )
    (stow,) = [each for each in objects if each["metadata"]["name"] == "space1-stow" and "spec" in each]
    env = {each["name"]: each.get("value") for each in stow["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["WADO_EXTERNAL_ENDPOINT"] == "https://dicomweb.example.org/space1/wado-rs"


def test_a_broker_that_is_not_known_yet_is_waited_for() -> None:
    resource, *others = copy.deepcopy(case("knative/dimse-ingestion-service").documents())
    for each in others:
        if each["kind"] == "DicomEventDrivenIngestion":
            del each["status"]
    with pytest.raises(MissingReference, match="DicomEventDrivenIngestion core has no broker endpoint yet"):
        KINDS[resource["kind"]].build(wanted(resource, others, KNATIVE), OperatorSettings(KNATIVE=True))


@pytest.mark.parametrize(
    "name",
    [
        "plain/event-driven-ingestion",
        "plain/dicomweb-ingestion-service",
        "plain/instance-binding-stow",
        "plain/study-binding",
        "plain/dimse-ingestion-service",
        "plain/event-bridge-hub",
    ],
)
def test_without_nats_for_events_it_says_what_to_set(name: str) -> None:
    with pytest.raises(Wrong) as raised:
        build(name, settings=OperatorSettings())
    assert str(raised.value) == (
        "No NATS server for events: set spec.natsUrl, or the operator's EVENTS_NATS_URL (chart value nats.url)"
    )


def test_the_edis_own_nats_is_everybodys() -> None:
    objects = build("plain/instance-binding-stow", settings=OperatorSettings(), edi={"natsUrl": "nats.example.org"})
    (deployment,) = [each for each in objects if each["kind"] == "Deployment"]
    env = {each["name"]: each.get("value") for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["EVENTS_NATS_URL"] == "nats.example.org"


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("plain/dimse-proxy", {"natsUrl": ""}, "spec.natsUrl is not set: the relay needs a NATS server with JetStream"),
        ("plain/dimse-ingestion-service", {"natsUrl": ""}, "spec.natsUrl is not set: the relay needs"),
        ("plain/event-bridge-hub", {"natsUrl": ""}, "spec.natsUrl is not set: the bridge needs"),
        ("plain/dimse-proxy", {"natsUrl": "nats://[::1"}, "address of the NATS server"),
        ("plain/event-bridge-hub", {"natsUrl": "nats://[::1"}, "address of the NATS server"),
        ("plain/event-driven-ingestion", {"natsUrl": "nats://[::1"}, "address of the NATS server"),
        ("plain/dimse-proxy", {"natsSubjectRoot": "a b"}, "natsSubjectRoot"),
        ("plain/dimse-proxy", {"natsSubjectRoot": "$a"}, "is not usable"),
        ("plain/event-bridge-edge", {"edgeMailbox": "hub"}, "mailbox id 'hub' is not usable"),
        ("plain/event-driven-ingestion", {"natsSubjectRoot": "$a"}, "subject root .* is not usable"),
        (
            "plain/event-driven-ingestion",
            {"env": [{"name": "HEALTH_PORT", "value": "1"}]},
            "spec.env: HEALTH_PORT is set by the operator, to 9090; remove it",
        ),
    ],
)
def test_what_only_a_change_can_help_is_said(name: str, spec: dict[str, Any], message: str) -> None:
    if message == "natsSubjectRoot":
        with pytest.raises(ValueError, match=message):
            build(name, **spec)
        return
    with pytest.raises(Wrong, match=message):
        build(name, **spec)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a" * 60, "give the DicomEventDrivenIngestion a name of at most 47 characters"),
        ("1st", "a name of lower-case letters, digits and '-' that begins with a letter"),
        ("my.core", "a name of lower-case letters, digits and '-' that begins with a letter"),
    ],
)
def test_a_name_that_does_not_fit_services_is_refused(name: str, message: str) -> None:
    resource, *others = case("plain/event-driven-ingestion").documents()
    resource["metadata"]["name"] = name
    with pytest.raises(Wrong, match=message):
        KINDS[resource["kind"]].build(wanted(resource, others), SETTINGS)


def named(kind: str, name: str) -> list[Json]:
    """A case's objects, of a resource with another name."""
    resource, *others = case(kind).documents()
    resource["metadata"]["name"] = name
    return list(KINDS[resource["kind"]].build(wanted(resource, others), SETTINGS))


@pytest.mark.parametrize("name", ["north.site", "2nd"])
def test_without_a_service_any_name_of_a_resource_will_do(name: str) -> None:
    objects = named("plain/dimse-ingestion-service", name)
    assert f"{name}-dimse" in {each["metadata"]["name"] for each in objects if each["kind"] == "Deployment"}
    with pytest.raises(Wrong, match="cannot be the name of a Service"):
        named("plain/dimse-ingestion-service-direct", name)


def test_a_workload_without_a_service_is_a_label_all_the_same() -> None:
    with pytest.raises(Wrong, match="give the DimseIngestionService a name of at most 57 characters"):
        named("plain/dimse-ingestion-service", "a" * 60)


@pytest.mark.parametrize("name", ["1st", "my.core"])
def test_a_knative_service_is_a_service(name: str) -> None:
    resource, *others = copy.deepcopy(case("knative/event-driven-ingestion").documents())
    resource["metadata"]["name"] = name
    with pytest.raises(Wrong, match="cannot be the name of a Service"):
        KINDS[resource["kind"]].build(wanted(resource, others, KNATIVE), OperatorSettings(KNATIVE=True))


@pytest.mark.parametrize(
    ("image", "ours"),
    [
        ("", True),
        ("imaging-ingestion:0.2.0", True),
        ("registry.example.org:5000/mirror/imaging-ingestion@sha256:" + "0" * 64, True),
        ("alvearie/dicom-cstore-binding:0.0.1", False),
        ("registry.example.org/imaging-ingestion/other", False),
    ],
)
def test_only_our_image_is_told_what_to_run(image: str, ours: bool) -> None:
    objects = build("plain/instance-binding-stow", instanceBinding={"image": image})
    (deployment,) = [each for each in objects if each["kind"] == "Deployment"]
    containers = deployment["spec"]["template"]["spec"]["containers"]
    assert ("args" in containers[0]) is ours
    assert [each["name"] for each in containers] == (["binding"] if ours else ["binding", "dispatcher"])


def test_network_policies_as_the_resource_or_the_operator_says() -> None:
    assert "networking.k8s.io NetworkPolicy" in kinds_of(build("plain/dimse-proxy"))
    assert "networking.k8s.io NetworkPolicy" not in kinds_of(build("plain/dimse-proxy", networkPolicy=False))
    off = OperatorSettings(NETWORK_POLICY=False)
    assert "networking.k8s.io NetworkPolicy" not in kinds_of(build("plain/dimse-proxy", settings=off))
    assert "networking.k8s.io NetworkPolicy" in kinds_of(build("plain/dimse-proxy", settings=off, networkPolicy=True))


def test_keda_is_used_where_it_is_and_may_be() -> None:
    wish = {"instanceBinding": {"maxReplicas": 3}}
    there = Features(keda=True)
    assert "keda.sh ScaledObject" in kinds_of(build("plain/instance-binding-stow", features=there, **wish))
    off = OperatorSettings(EVENTS_NATS_URL="nats://n", KEDA=False)
    objects = build("plain/instance-binding-stow", features=there, settings=off, **wish)
    assert "autoscaling HorizontalPodAutoscaler" in kinds_of(objects)


@pytest.mark.parametrize("own", [":2", "@sha256:2", ":2@sha256:2"])
@pytest.mark.parametrize(
    ("image", "both"),
    [("", True), ("mirror:5000/ours/imaging-ingestion{own}", True), ("site/forwarder:7", True)]
    + [(f"registry/imaging-ingestion{former}", False) for former in (":1", "@sha256:1")],
)
def test_no_consumer_is_looked_at_that_a_former_version_does_not_have(image: str, both: bool, own: str) -> None:
    """KEDA would start as many pods as there may be."""
    settings = OperatorSettings(EVENTS_NATS_URL="nats://n", IMAGE=f"registry/imaging-ingestion{own}")
    image = image.format(own=own)
    wish = {"instanceBinding": {"maxReplicas": 3, "image": image}}
    objects = build("plain/instance-binding-stow", features=Features(keda=True), settings=settings, **wish)
    (scaled,) = [each for each in objects if each["kind"] == "ScaledObject"]
    name = scaled["spec"]["scaleTargetRef"]["name"]
    assert [each["metadata"]["consumer"] for each in scaled["spec"]["triggers"]] == [name, f"{name}+urgent"][: 1 + both]


@pytest.mark.parametrize(
    ("target", "scaler"),
    [
        ({"targetDimseHost": "pacs", "targetDimsePort": 104}, "keda.sh ScaledObject"),
        ({"targetDimseHost": "", "targetDimsePort": 104}, "autoscaling HorizontalPodAutoscaler"),
        ({"targetDimseHost": "pacs", "targetDimsePort": 0}, "autoscaling HorizontalPodAutoscaler"),
    ],
)
def test_a_proxy_without_a_target_scales_by_cpu(target: dict[str, Any], scaler: str) -> None:
    """Its queue is empty, or nobody's: only associations are load."""
    objects = build("plain/dimse-proxy", features=Features(keda=True), proxy={"maxReplicas": 3}, **target)
    assert {kind for kind in kinds_of(objects) if kind.startswith(("keda", "autoscaling"))} == {scaler}


@pytest.mark.parametrize(("title", "told"), [("PACS", True), ("a title that no application entity has", False)])
def test_a_title_that_no_ae_can_have_is_left_out_where_nothing_is_delivered(title: str, told: bool) -> None:
    objects = build("plain/dimse-proxy", targetDimseHost="", applicationEntityTitle=title)
    told_by = [each for each in objects if each["kind"] == "ConfigMap" and "DIMSE_TARGET_AE" in each["data"]]
    assert bool(told_by) is told


def test_keda_finds_a_server_of_the_resources_namespace() -> None:
    scaled = {"instanceBinding": {"maxReplicas": 3}}
    objects = build(
        "plain/instance-binding-stow", features=Features(keda=True), edi={"natsUrl": "imaging-nats:4222"}, **scaled
    )
    (found,) = [each for each in objects if each["kind"] == "ScaledObject"]
    endpoint = found["spec"]["triggers"][0]["metadata"]["natsServerMonitoringEndpoint"]
    assert endpoint == "imaging-nats.imaging.svc.cluster.local:8222"


def with_data(name: str, kind: str, named_: str, **data: str) -> list[Json]:
    """The documents of a case with other keys in a ConfigMap or Secret."""
    documents = copy.deepcopy(case(name).documents())
    for each in documents:
        if (each["kind"], each["metadata"]["name"]) == (kind, named_):
            each["data"] = (each.get("data") or {}) | data
    return documents


@pytest.mark.parametrize(
    ("name", "kind", "named_", "value", "seconds"),
    [
        ("plain/event-driven-ingestion", "ConfigMap", "db-config", "200", 220),
        ("plain/event-driven-ingestion", "Secret", "db-secret", "MjAw", 220),
        ("plain/event-driven-ingestion-all-fields", "ConfigMap", "db-config", "200", 110),
        ("plain/instance-binding-stow", "ConfigMap", "archive-config", "200", 210),
        ("plain/instance-binding-stow", "Secret", "archive-secret", "MjAw", 210),
        ("plain/instance-binding-own-image", "ConfigMap", "archive-config", "200", 220),
        ("plain/instance-binding-own-image", "ConfigMap", "archive-config", "1", 50),
    ],
)
def test_pods_may_drain_as_long_as_their_references_say(
    name: str, kind: str, named_: str, value: str, seconds: int
) -> None:
    resource, *others = with_data(name, kind, named_, DRAIN_SECONDS=value)
    objects = KINDS[resource["kind"]].build(wanted(resource, others), SETTINGS)
    (deployment,) = [each for each in objects if each["kind"] == "Deployment"]
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds


@pytest.mark.parametrize(
    ("name", "config", "key"),
    [
        ("plain/instance-binding-stow", "archive-config", "STOW_ENDPOINT"),
        ("plain/study-binding", "fhir-config", "FHIR_ENDPOINT"),
    ],
)
def test_a_target_that_is_no_url_is_said_without_its_password(name: str, config: str, key: str) -> None:
    resource, *others = with_data(name, "ConfigMap", config, **{key: "https://user:hidden@[::1/x"})
    with pytest.raises(Wrong, match=f"{key} is not a URL") as caught:
        KINDS[resource["kind"]].build(wanted(resource, others), SETTINGS)
    assert "hidden" not in str(caught.value)


def test_a_hub_that_becomes_an_edge_wants_no_locations() -> None:
    names = {each["metadata"]["name"] for each in build("plain/event-bridge-hub", role="edge", edgeMailbox="north")}
    assert "wide-edge-location-config" not in names


def test_knative_cannot_mount_a_database_key() -> None:
    with pytest.raises(Wrong, match="set knative: false"):
        build("plain/event-driven-ingestion-all-fields", features=KNATIVE, knative=True)
