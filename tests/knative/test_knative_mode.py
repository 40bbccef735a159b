"""The system of ``examples/`` in Knative mode: an image stored through STOW-RS wakes everything up to the bindings."""

from collections.abc import Iterator

import httpx
import pytest
import yaml

from cluster.images import IMAGE, TRIAL_IMAGE
from cluster.kind import Kind
from cluster.kubectl import Json, Kubectl, until
from cluster.node import Node
from knative.serverless import awake, is_at_zero, public, replicas, revisions
from support.helm import CHART, ROOT, Helm
from support.instances import instance, part10

EXAMPLE = ROOT / "examples" / "kubernetes" / "complete-system.yaml"
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
REPOSITORY = "dev.local/imaging-ingestion"
"""Serving asks no registry for the digest of a tag of ``dev.local``."""
VALUES = {
    "image": {"repository": REPOSITORY},
    "knative": {"enabled": True},
    "postgresql": {"enabled": True, "persistence": {"enabled": False}},
    "s3": {"enabled": True, "persistence": {"enabled": False}},
}
NOT_ON_KNATIVE = ("DimseIngestionService", "DimseProxy")
SERVICES = {
    "main-event-processor",
    "north-stow",
    "north-wado",
    "subscriber-instance-binding",
    "subscriber-study-binding",
}
READY = "--for=condition=Ready"

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def system(
    node: Node | Kind, kubectl: Kubectl, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The namespace in which the chart is installed with Knative on, and the example applied; all is ready."""
    node.tag(IMAGE, f"{REPOSITORY}:{VERSION}")
    node.tag(TRIAL_IMAGE, f"imaging-ingestion-trial:{VERSION}")
    helm = Helm(tmp_path_factory.mktemp("helm"), node.kubeconfig)
    helm("install", "imaging", CHART, "--namespace", namespace, values=VALUES)
    kubectl("rollout", "status", "deployment,statefulset", "-n", namespace, "--timeout=480s", seconds=490)
    kubectl.apply(*_example(), namespace=namespace)
    resources = [f"{each['kind']}/{each['metadata']['name']}".lower() for each in _example() if _is_ours(each)]
    kubectl("wait", *resources, "-n", namespace, READY, "--timeout=480s", seconds=490)
    kubectl("wait", "ksvc,broker,trigger,sinkbinding", "--all", "-n", namespace, READY, "--timeout=480s", seconds=490)
    yield namespace
    kubectl("delete", "-n", namespace, *resources, "--timeout=110s")
    helm("uninstall", "imaging", "--namespace", namespace)


def test_every_revision_works(kubectl: Kubectl, system: str) -> None:
    """None is made before it has all that it needs to start."""
    until(lambda: set(revisions(kubectl, system).values()) == {"True"}, account=lambda: _account(kubectl, system))


def test_an_image_wakes_the_bindings(node: Node | Kind, kubectl: Kubectl, system: str) -> None:
    assert set(replicas(kubectl, system)) == SERVICES
    until(lambda: is_at_zero(kubectl, system), 300, lambda: str(replicas(kubectl, system)))
    before = revisions(kubectl, system)

    dataset, woken = instance(), set[str]()
    assert _stow(node, system, part10(dataset)).status_code == 200
    for event in ("DicomAvailableEvent", "StudyRevisionEvent"):

        def heard(event: str = event) -> bool:
            woken.update(awake(kubectl, system))
            return event in _received(kubectl, system)

        until(heard, 240, lambda: _account(kubectl, system))
    assert woken == SERVICES - {"north-wado"}
    assert set(_received(kubectl, system).split()[::2]) == {"DicomAvailableEvent", "StudyRevisionEvent"}

    assert _stored(node, system, dataset.StudyInstanceUID) == dataset.SOPInstanceUID
    until(lambda: is_at_zero(kubectl, system), 300, lambda: str(replicas(kubectl, system)))
    assert revisions(kubectl, system) == before


def _example() -> list[Json]:
    documents: list[Json] = list(yaml.safe_load_all(EXAMPLE.read_text()))
    return [each for each in documents if each["kind"] not in NOT_ON_KNATIVE]


def _is_ours(document: Json) -> bool:
    return bool(document["apiVersion"].startswith("imaging-ingestion.alvearie.org/"))


def _stow(node: Node | Kind, namespace: str, file: bytes) -> httpx.Response:
    address, headers = public(node, namespace, "north-stow")
    headers["Content-Type"] = 'multipart/related; type="application/dicom"; boundary=part'
    body = b"--part\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--part--\r\n"
    return httpx.post(f"{address}/stow-rs/studies", content=body, headers=headers, timeout=240, trust_env=False)


def _stored(node: Node | Kind, namespace: str, study: str) -> str:
    """SOP instance UID of the only instance that WADO-RS has of a study."""
    address, headers = public(node, namespace, "north-wado")
    headers["Accept"] = "application/dicom+json"
    url = f"{address}/wado-rs/studies/{study}/metadata"
    answer = httpx.get(url, headers=headers, timeout=240, trust_env=False)
    (found,) = answer.raise_for_status().json()
    return str(found["00080018"]["Value"][0])


def _received(kubectl: Kubectl, namespace: str) -> str:
    """A line with type and id of every event that came to the subscriber behind the bindings."""
    return kubectl("logs", "deployment/subscriber", "-n", namespace)


def _account(kubectl: Kubectl, namespace: str) -> str:
    return kubectl("get", "pods,revisions,ksvc,broker,trigger,imaging", "-n", namespace)
