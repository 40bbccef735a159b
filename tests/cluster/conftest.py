"""A real cluster of one node with the project's image on it, for the tests of this folder; one for all of them."""

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
from cluster.quickstart import Quickstart
from cluster.quickstart import quickstart as running_quickstart
from cluster.system import System

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """The mark of what CI has no time for."""
    config.addinivalue_line("markers", "long: takes minutes; left out of the short form that CI runs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests start and stop whole systems; and what takes the system away comes last."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))
    items.sort(key=lambda item: item.path == HERE / "test_uninstall.py")


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


@pytest.fixture(scope="session")
def node() -> Iterator[Node | Kind]:
    """The cluster, running, with the project's images; taken away at the end."""
    with tempfile.TemporaryDirectory() as folder:
        node: Node | Kind = Kind(Path(folder)) if kind.is_possible() else Node(tied=True)
        try:
            node.start()
            for archive in ARCHIVES.values():
                node.load(archive)
            yield node
        finally:
            node.stop()


@pytest.fixture(scope="session")
def kubectl(node: Node | Kind) -> Kubectl:
    """``kubectl`` of the cluster, with every right."""
    return Kubectl(node.programs["kubectl"], node.kubeconfig)


@pytest.fixture(scope="session")
def quickstart(node: Node | Kind, kubectl: Kubectl) -> Iterator[Quickstart]:
    """The whole product, installed as docs/quickstart-kubernetes.md does it, with two studies stored."""
    with running_quickstart(kubectl, node.programs["helm"], node.address) as running:
        yield running


@pytest.fixture(scope="session")
def system(quickstart: Quickstart) -> System:
    """The system of the quick start."""
    return quickstart.system


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A fresh namespace that takes restricted pods only."""
    name = kubectl.new_namespace()
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    kubectl.delete("namespace", name)
