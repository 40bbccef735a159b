"""A real API server for the tests of this folder: etcd, kube-apiserver, kube-controller-manager; no node."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from cluster.programs import CONTROL_PLANE, programs
from cluster.sessions import control_plane as running_control_plane
from cluster.sessions import given_cluster

CRDS = Path(__file__).parents[2] / "crds"
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test starts the control plane, which takes a minute on a busy machine."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing before the clock of the first test runs: the first time that takes minutes."""
    wanted = any(item.path.is_relative_to(HERE) for item in session.items)
    if wanted and not session.config.option.collectonly:
        programs(CONTROL_PLANE)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of our own, with the CRDs; a test may stop and start its API server."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        install_crds(Kubectl(plane.programs["kubectl"], plane.kubeconfig))
        yield plane


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Kubectl:
    """``kubectl`` of the cluster that the tests use, with the CRDs: a given one, else our own control plane."""
    if given := given_cluster():
        install_crds(given)
        return given
    plane: ControlPlane = request.getfixturevalue("control_plane")
    return Kubectl(plane.programs["kubectl"], plane.kubeconfig)


@pytest.fixture
def own_cluster(control_plane: ControlPlane) -> Kubectl:
    """``kubectl`` of our own control plane, for tests that restart the API server or need every right."""
    return Kubectl(control_plane.programs["kubectl"], control_plane.kubeconfig)


@pytest.fixture
def namespace(cluster: Kubectl) -> Iterator[str]:
    """A fresh namespace; deleted at the end, without waiting for it."""
    name = cluster.new_namespace()
    yield name
    cluster.delete("namespace", name, wait=False)


def install_crds(kubectl: Kubectl) -> None:
    """Apply ``crds/`` and wait until the API server serves them."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", CRDS)
    names = kubectl("get", "-f", CRDS, "-o", "name").split()
    kubectl("wait", "--for=condition=Established", *names, "--timeout=60s")
