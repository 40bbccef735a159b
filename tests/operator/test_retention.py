"""``retention: Delete``: the streams of a resource go with it, and deletion never hangs without saying why."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from nats.js.errors import NotFoundError

from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl, until
from imaging_operator.reconcile import FINALIZER
from imaging_services.domain.relay.subjects import RelaySubjects
from support.operator_cluster import EDI, PROXY, config_map, custom, database, edi, notes, owned, proxy, secret
from support.operator_process import OperatorProcess, grant, restricted_kubeconfig
from support.servers import Nats

DEPLOYMENT = "px-dimse-proxy"
NOBODY = "nats://127.0.0.1:9"


@pytest.fixture
def namespace(own_cluster: Kubectl) -> Iterator[str]:
    """With the operator's rights."""
    name = own_cluster.new_namespace()
    grant(own_cluster, name, lease_namespace=name)
    yield name
    own_cluster.delete("namespace", name, wait=False)


@pytest.fixture
def operator(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """It gives up on streams after half a minute."""
    kubeconfig = restricted_kubeconfig(control_plane)
    options = {"WATCH_NAMESPACE": namespace, "STREAM_REMOVAL_SECONDS": "30"}
    with OperatorProcess(tmp_path / "operator", kubeconfig, namespace, **options) as process:
        yield process
        assert process.forbidden() == []


def _streams(url: str, names: list[str], *, create: bool = False) -> list[str]:
    """Which of the streams exist."""

    async def look() -> list[str]:
        client = await nats.connect(url)
        try:
            js = client.jetstream()
            found = []
            for name in names:
                if create:
                    await js.add_stream(name=name, subjects=[f"test.{name}"])
                try:
                    found.append(str((await js.stream_info(name)).config.name))
                except NotFoundError:
                    continue
            return found
        finally:
            await client.close()

    return asyncio.run(look())


def _names(root: str) -> list[str]:
    subjects = RelaySubjects(root, "A")
    queues = [subjects.stream, subjects.urgent_stream]
    return [*queues, subjects.dead_letter_stream, f"OBJ_{subjects.bucket}"]


def _made(kubectl: Kubectl, namespace: str, **spec: str) -> None:
    kubectl.apply(proxy(**spec), namespace=namespace)
    kubectl.wait_for(bool, "deployment", DEPLOYMENT, namespace)


@pytest.mark.usefixtures("operator")
def test_streams_go_with_the_resource(own_cluster: Kubectl, namespace: str, nats_server: Nats) -> None:
    root = namespace.upper()
    assert _streams(nats_server.url, _names(root), create=True) == _names(root)
    _made(own_cluster, namespace, natsUrl=nats_server.url, natsSubjectRoot=root, retention="Delete")
    own_cluster.wait_for(lambda it: it["metadata"].get("finalizers") == [FINALIZER], PROXY, "px", namespace)
    own_cluster.delete(PROXY, "px", namespace)
    assert _streams(nats_server.url, _names(root)) == []
    said = dict(notes(own_cluster, namespace, "px"))["StreamsRemoved"]
    assert all(name in said for name in _names(root))
    until(lambda: owned(own_cluster, namespace) == [])


@pytest.mark.usefixtures("operator")
def test_streams_are_kept_unless_the_resource_says_otherwise(
    own_cluster: Kubectl, namespace: str, nats_server: Nats
) -> None:
    root = namespace.upper()
    _streams(nats_server.url, _names(root), create=True)
    _made(own_cluster, namespace, natsUrl=nats_server.url, natsSubjectRoot=root, retention="Delete")
    own_cluster.patch(PROXY, "px", {"spec": {"retention": "Retain"}}, namespace)
    own_cluster.wait_for(lambda it: not it["metadata"].get("finalizers"), PROXY, "px", namespace)
    own_cluster.delete(PROXY, "px", namespace)
    until(lambda: "Kept" in dict(notes(own_cluster, namespace, "px")))
    assert all(name in dict(notes(own_cluster, namespace, "px"))["Kept"] for name in _names(root))
    assert _streams(nats_server.url, _names(root)) == _names(root)


@pytest.mark.usefixtures("operator")
def test_an_event_log_waits_for_those_who_would_make_it_again(
    own_cluster: Kubectl, namespace: str, nats_server: Nats
) -> None:
    names = [f"{namespace}_hospital-events", f"{namespace}_hospital-dead-letters"]
    assert _streams(nats_server.url, names, create=True) == names
    binding = {"dicomEventDrivenIngestionName": "hospital", "bindingConfigName": "b", "bindingSecretName": "b"}
    own_cluster.apply(
        secret("db-secret", {"DB_USER": "u", "DB_PASS": "p"}),
        config_map("db-config", database()),
        config_map("b", {"STOW_ENDPOINT": "http://pacs/studies"}),
        secret("b", {}),
        edi(natsUrl=nats_server.url, retention="Delete"),
        custom("DicomInstanceBinding", "forward", binding),
        namespace=namespace,
    )
    own_cluster.wait_for(bool, "deployment", "forward-instance-binding", namespace)
    own_cluster.wait_for(lambda it: it["metadata"].get("finalizers") == [FINALIZER], EDI, "hospital", namespace)
    own_cluster.delete(EDI, "hospital", namespace, wait=False)
    own_cluster.wait_for(
        lambda it: it.get("status", {}).get("message", "").endswith(": DicomInstanceBinding forward"),
        EDI,
        "hospital",
        namespace,
    )
    assert _streams(nats_server.url, names) == names
    own_cluster.delete("DicomInstanceBinding", "forward", namespace)
    own_cluster.wait_gone(EDI, "hospital", namespace)
    assert _streams(nats_server.url, names) == []


@pytest.mark.usefixtures("operator")
def test_deletion_says_why_it_waits_and_then_gives_up(own_cluster: Kubectl, namespace: str) -> None:
    _made(own_cluster, namespace, natsUrl=NOBODY, retention="Delete")
    own_cluster.wait_for(lambda it: it["metadata"].get("finalizers"), PROXY, "px", namespace)
    own_cluster.delete(PROXY, "px", namespace, wait=False)
    resource = own_cluster.wait_for(
        lambda it: "cannot be removed" in it.get("status", {}).get("message", ""), PROXY, "px", namespace
    )
    assert resource["status"]["phase"] == "Failing"
    assert "no NATS server answers" in resource["status"]["message"]
    own_cluster.wait_gone(PROXY, "px", namespace)
    until(lambda: "StreamsLeft" in dict(notes(own_cluster, namespace, "px")))
    assert "by hand" in dict(notes(own_cluster, namespace, "px"))["StreamsLeft"]
