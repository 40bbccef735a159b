"""The parts that builders put together: environment, resources, names, scale, addresses."""

import base64

import pytest

from imaging_operator.builders.environment import Environment, SecretKey, keys_of, value_of
from imaging_operator.builders.events import nats_lag
from imaging_operator.builders.pod import Size, resources
from imaging_operator.builders.servers import reachable
from imaging_operator.errors import Wrong
from imaging_operator.kinds.shared import deployment_scale, image_of, service_scale
from imaging_operator.settings import OperatorSettings
from imaging_operator.specs.common import DeploymentGroup, ServiceGroup

SIZE = Size(cpu="100m", memory="128Mi")


def test_a_pod_of_several_workers_is_as_large_as_they_and_their_parent_need() -> None:
    assert SIZE.of_workers(1) is SIZE
    assert Size("100m", "128Mi", "1Gi", "2Gi").of_workers(4) == Size("400m", "608Mi", "4192Mi", "2Gi")


def test_the_stronger_value_wins() -> None:
    it = Environment(
        fixed={"PORT_OF_POD": "1"},
        values={"DERIVED": "operator", "IN_OBJECT": "operator", "IN_OVERRIDES": "operator", "IN_ENV": "operator"},
        chosen={"CHOSEN": "field", "CHOSEN_IN_OBJECT": "field", "CHOSEN_IN_OVERRIDES": "field"},
        brought={"IN_OBJECT", "CHOSEN_IN_OBJECT", "PORT_OF_POD"},
        overridden={"IN_OVERRIDES", "CHOSEN_IN_OVERRIDES"},
        overrides=[("IN_ENV", "env"), ("NEW", "env")],
    )
    assert it.effective() == {
        "PORT_OF_POD": "1",
        "DERIVED": "operator",
        "CHOSEN": "field",
        "CHOSEN_IN_OBJECT": "field",
        "IN_ENV": "env",
        "NEW": "env",
    }


def test_fixed_values_cannot_be_set() -> None:
    with pytest.raises(Wrong, match="HEALTH_PORT is set by the operator, to 9090"):
        Environment(fixed={"HEALTH_PORT": "9090"}, overrides=[("HEALTH_PORT", "1")]).render()


def test_the_last_of_two_values_in_env_counts() -> None:
    assert Environment(overrides=[("A", "1"), ("A", "2")]).render() == [{"name": "A", "value": "2"}]


def test_secrets_stay_where_they_are() -> None:
    assert Environment(values={"B": SecretKey("s", "token"), "A": "1"}).render() == [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
    ]


def test_objects_without_data_are_empty() -> None:
    assert keys_of({"kind": "Secret"}, None, {"data": None}, {"data": {"A": ""}}) == {"A"}


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        (None, "from config"),
        ({"data": {"A": base64.b64encode(b"from secret").decode()}}, "from secret"),
        ({"data": {"A": ""}}, ""),
        ({"data": {"A": "%"}}, None),
        ({"data": {"A": "/w=="}}, None),
        ({"data": {"OTHER": "MQ=="}}, "from config"),
    ],
)
def test_values_as_a_pod_sees_them(secret: dict[str, object] | None, expected: str | None) -> None:
    assert value_of("A", {"data": {"A": "from config"}}, secret) == expected


@pytest.mark.parametrize(
    ("wished", "expected"),
    [
        ({}, {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "384Mi"}}),
        ({"limits": {"memory": "64Mi"}}, {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}),
        ({"requests": {"memory": "1Gi"}}, {"requests": {"cpu": "100m", "memory": "1Gi"}}),
        (
            {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
            {"requests": {"cpu": "1", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "384Mi"}},
        ),
    ],
)
def test_a_default_never_contradicts_a_wish(
    wished: dict[str, dict[str, str]], expected: dict[str, dict[str, str]]
) -> None:
    assert resources(SIZE, wished) == expected


@pytest.mark.parametrize(
    ("group", "bounds"),
    [
        (ServiceGroup(), (1, 1)),
        (ServiceGroup(min_replicas=0, max_replicas=1), (1, 1)),
        (ServiceGroup(min_replicas=2), (2, 2)),
        (ServiceGroup(min_replicas=0, max_replicas=4), (1, 4)),
        (ServiceGroup(min_replicas=3, max_replicas=3), (3, 3)),
    ],
)
def test_services_without_knative_have_at_least_one_pod(group: ServiceGroup, bounds: tuple[int, int]) -> None:
    scale = service_scale(group)
    assert (scale.minimum, scale.maximum) == bounds


@pytest.mark.parametrize(
    ("group", "bounds"),
    [
        (DeploymentGroup(), (1, 1)),
        (DeploymentGroup(replicas=0), (0, 0)),
        (DeploymentGroup(replicas=3), (3, 3)),
        (DeploymentGroup(replicas=9, max_replicas=2), (1, 2)),
        (DeploymentGroup(min_replicas=2, max_replicas=5), (2, 5)),
    ],
)
def test_deployments_have_a_number_or_bounds(group: DeploymentGroup, bounds: tuple[int, int]) -> None:
    scale = deployment_scale(group)
    assert (scale.minimum, scale.maximum) == bounds


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("nats://nats.messaging.svc:4222", "nats.messaging.svc:8222"),
        ("nats-a:4222, nats-b:4222", "nats-a.imaging.svc.cluster.local:8222"),
        ("nats", "nats.imaging.svc.cluster.local:8222"),
        ("tls://user@nats.example.org", "nats.example.org:8222"),
        ("nats://[fd00::7]:4222", "[fd00::7]:8222"),
    ],
)
def test_the_monitoring_endpoint_is_beside_the_server(url: str, endpoint: str) -> None:
    assert nats_lag(url, "imaging", "s", "c", OperatorSettings()).monitoring == endpoint


def test_the_operators_monitoring_endpoint_is_that_of_the_operators_server() -> None:
    settings = OperatorSettings(
        EVENTS_NATS_URL="nats", EVENTS_NATS_MONITORING="monitor:80", EVENTS_NATS_ACCOUNT="imaging"
    )
    own, other = (nats_lag(url, "imaging", "s", "c", settings) for url in ("nats", "nats.example.org"))
    assert (own.monitoring, own.account) == ("monitor:80", "imaging")
    assert (other.monitoring, other.account) == ("nats.example.org:8222", "$G")


@pytest.mark.parametrize(
    ("servers", "found"),
    [
        ("imaging-nats:4222", "imaging-nats.north.svc.example"),
        ("nats://imaging-nats:4222", "nats://imaging-nats.north.svc.example"),
        ("tls://user:p@ss@nats", "tls://user:p@ss@nats.north.svc.example"),
        ("tls://user:pass@nats", "tls://user:pass@nats.north.svc.example"),
        ("nats.messaging:4222", None),
        ("nats://10.0.0.7:4222", None),
        ("nats://[fd00::7]:4222", None),
        ("localhost:4222", None),
    ],
)
def test_short_names_are_services_of_the_resources_namespace(servers: str, found: str | None) -> None:
    port = ":4222" if servers.endswith(":4222") else ""
    expected = servers if found is None else found + port
    assert reachable(servers, "north", OperatorSettings(CLUSTER_DOMAIN="example")) == expected


def test_each_of_several_servers_is_reachable() -> None:
    servers = reachable("a:4222, b.example.org:4222,tls://c", "north", OperatorSettings())
    assert servers == "a.north.svc.cluster.local:4222,b.example.org:4222,tls://c.north.svc.cluster.local"


@pytest.mark.parametrize("url", ["nats://user:hidden@[::1", "nats://", ","])
def test_what_is_no_address_is_said_without_its_password(url: str) -> None:
    with pytest.raises(Wrong, match="address of the NATS server") as caught:
        nats_lag(url, "imaging", "s", "c", OperatorSettings())
    assert "hidden" not in str(caught.value)


def test_the_default_image_is_the_operators() -> None:
    assert image_of("", OperatorSettings(IMAGE="registry/x:1")) == ("registry/x:1", True)
