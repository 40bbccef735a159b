"""What an operator at work says of itself: its log and its metrics."""

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from support.operator_cluster import (
    PROXY,
    config_map,
    database,
    edi,
    made,
    proxy,
    secret,
)
from support.operator_process import OperatorProcess, operator_of_the_whole_cluster

Json = dict[str, Any]


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator of the whole cluster; what it sees comes from events alone."""
    with operator_of_the_whole_cluster(control_plane, tmp_path_factory.mktemp("operator")) as process:
        yield process


@pytest.fixture
def namespace(own_cluster: Kubectl, operator: OperatorProcess) -> Iterator[str]:
    """A namespace that the operator watches."""
    name = own_cluster.new_namespace()
    yield name
    own_cluster.delete("namespace", name, wait=False)


def test_no_secret_is_logged(own_cluster: Kubectl, namespace: str, operator: OperatorProcess) -> None:
    own_cluster.apply(
        edi(),
        secret("db-secret", {"DB_USER": "u", "DB_PASS": "do-not-log-me"}),
        config_map("db-config", database()),
        namespace=namespace,
    )
    own_cluster.wait_for(bool, "deployment", "hospital-event-processor", namespace)
    text = operator.log.read_text()
    assert "do-not-log-me" not in text
    assert "ZG8tbm90LWxvZy1tZQ" not in text
    assert all(event["event"] for event in operator.events())


def test_what_it_does_is_measured(own_cluster: Kubectl, namespace: str, operator: OperatorProcess) -> None:
    made(own_cluster, namespace)
    own_cluster.apply(proxy("waiting", natsTokenSecret="absent"), namespace=namespace)
    own_cluster.wait_for(lambda it: it.get("status"), PROXY, "waiting", namespace)
    assert operator.metric("imaging_operator_reconciliations_total", kind=PROXY, result="success") > 0
    assert operator.metric("imaging_operator_reconciliations_total", kind=PROXY, result="error") > 0
    assert operator.metric("imaging_operator_reconcile_seconds_count", kind=PROXY) > 0
    assert operator.metric("imaging_operator_errors_total", kind=PROXY, reason="MissingReference") > 0
    assert operator.metric("imaging_operator_api_requests_total", verb="patch", resource="deployments") > 0
    assert operator.metric("imaging_operator_watch_events_total", resource="deployments") > 0
    assert operator.leads()
    assert operator.is_alive()
