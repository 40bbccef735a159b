"""A real cluster of one node with Knative and the project's images on it; one for all tests of this folder."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import images, kind
from cluster.images import ARCHIVES, IMAGE, TRIAL_IMAGE
from cluster.kind import Kind
from cluster.kubectl import Kubectl
from cluster.node import Node
from cluster.programs import CONTROL_PLANE, NODE, programs
from knative import installation

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build programs and images before the clock of the first test runs."""
    wanted = any(item.path.is_relative_to(HERE) for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    if kind.is_possible():
        programs(["kubectl", "helm"])
    else:
        programs(CONTROL_PLANE + NODE)
    build = kind.build_image if kind.is_possible() else images.build
    build(TRIAL_IMAGE, ARCHIVES[TRIAL_IMAGE], target="trial")
    build(IMAGE, ARCHIVES[IMAGE])
    installation.prepare()


@pytest.fixture(scope="session")
def node() -> Iterator[Node | Kind]:
    """The cluster with Knative, ready; taken away at the end."""
    with tempfile.TemporaryDirectory() as folder:
        node: Node | Kind = Kind(Path(folder)) if kind.is_possible() else Node(tied=True)
        try:
            kubectl = node.start()
            for archive in ARCHIVES.values():
                node.load(archive)
            installation.install(node, kubectl)
            yield node
        finally:
            node.stop()


@pytest.fixture(scope="session")
def kubectl(node: Node | Kind) -> Kubectl:
    """``kubectl`` of the cluster, with every right."""
    return Kubectl(node.programs["kubectl"], node.kubeconfig)


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A fresh namespace that takes restricted pods only; deleted at the end, without waiting for it."""
    name = kubectl.new_namespace()
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    kubectl.delete("namespace", name, wait=False)  # Knative's pods have a grace period of five minutes
