"""Modalities send all the time while pods are replaced, killed and upgraded."""

import time

import pytest

from cluster.images import IMAGE
from cluster.kind import Kind
from cluster.kubectl import until
from cluster.modality import Modality, more_than, sending
from cluster.node import Node
from cluster.quickstart import Quickstart
from cluster.system import CHART, NAMESPACE, RELEASE, System

NEW_TAG = "0.1.1"
SERVICES = {
    "hospital-dimse-proxy",
    "main-event-processor",
    "north-dimse",
    "north-stow",
    "north-wado",
    "subscriber-instance-binding",
    "subscriber-study-binding",
}
# Killed one after the other; the trial servers are one pod each, so what needs them waits.
VICTIMS = (*sorted(SERVICES), "imaging-nats", "imaging-postgresql", "imaging-s3", "imaging-operator")


def test_a_rolling_upgrade_fails_and_loses_no_c_store(node: Node | Kind, quickstart: Quickstart) -> None:
    system = quickstart.system
    node.tag(IMAGE, f"{IMAGE.rpartition(':')[0]}:{NEW_TAG}")
    with sending(2, system.dicom) as modalities:
        until(more_than(modalities, 10))
        _upgrade(system, f"image.tag={NEW_TAG}")
        until(lambda: _tags(system) == dict.fromkeys(SERVICES, NEW_TAG), 300, system.account)
        system.wait_ready()
        until(more_than(modalities, 10))
    assert [modality.failures for modality in modalities] == [[], []]
    _nothing_is_lost(system, modalities)


@pytest.mark.long
def test_killed_pods_lose_nothing_that_was_acknowledged(system: System) -> None:
    with sending(2, system.dicom, retries=True) as modalities:
        until(more_than(modalities, 10))
        for victim in VICTIMS:
            killed = _kill(system, victim)
            until(lambda killed=killed: not killed & _running(system), account=system.account)
            until(more_than(modalities, 10), 300, system.account)
    system.wait_ready()
    _nothing_is_lost(system, modalities)
    images = sum(len(modality.acknowledged) for modality in modalities)
    print(f"{images} images acknowledged, {sum(len(m.failures) for m in modalities)} attempts failed and were repeated")


def _upgrade(system: System, value: str) -> None:
    system.helm("upgrade", RELEASE, CHART, "--reuse-values", "--set", value, "--wait")


def _nothing_is_lost(system: System, modalities: list[Modality]) -> None:
    for modality in modalities:
        system.wait_stored(modality.study, modality.acknowledged)


def _tags(system: System) -> dict[str, str]:
    """The image's tag by Deployment of the system, where all of its pods are of it."""
    selector = "app.kubernetes.io/managed-by=imaging-ingestion-operator"
    found = {}
    for deployment in system.kubectl.objects("deployments", NAMESPACE, selector=selector):
        (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
        found[deployment["metadata"]["name"]] = container["image"].rpartition(":")[2]
    return found


def _kill(system: System, workload: str) -> set[str]:
    """Its pods are gone within a second; returns their unique ids."""
    pods = {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in system.kubectl.objects("pods", NAMESPACE)
        if pod["metadata"]["name"].startswith(f"{workload}-")
    }
    assert pods, workload
    system.kubectl("-n", NAMESPACE, "delete", "pod", *pods, "--grace-period=1", "--wait=false")
    return set(pods.values())


def _running(system: System) -> set[str]:
    return {pod["metadata"]["uid"] for pod in system.kubectl.objects("pods", NAMESPACE)}


@pytest.mark.long
def test_a_second_operator_takes_over(system: System) -> None:
    _upgrade(system, "operator.replicas=2")
    first = _leader(system)
    system.kubectl("-n", NAMESPACE, "delete", "pod", first, "--grace-period=1", "--wait=false")
    until(lambda: _leader(system) not in ("", first), account=system.account)
    begun = time.monotonic()
    system.kubectl("-n", NAMESPACE, "delete", "deployment", "north-wado")
    system.wait_ready(60)
    print(f"a deleted Deployment was back and ready after {time.monotonic() - begun:.0f} s")
    _upgrade(system, "operator.replicas=1")


def _leader(system: System) -> str:
    lease = system.kubectl.get("lease", f"{RELEASE}-operator", NAMESPACE)
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")
