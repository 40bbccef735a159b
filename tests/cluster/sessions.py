"""A cluster for one test session: somebody's own, or a control plane that lives as long as the block."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.control_plane import ControlPlane, Network
from cluster.errors import ClusterError
from cluster.kubectl import Kubectl
from cluster.processes import Processes
from cluster.programs import programs

_TRIES = 3  # between choosing a port and listening on it another program may take it


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """A new control plane, ready; its programs end with the block, and with this process."""
    for number in range(1, _TRIES + 1):
        state = folder / str(number)
        plane = ControlPlane(state, Processes(state / "run", tied=True), Network())
        try:
            plane.start()
        except ClusterError:
            plane.stop()
            if number == _TRIES:
                raise
            continue
        break
    try:
        yield plane
    finally:
        plane.stop()


def given_cluster() -> Kubectl | None:
    """The cluster that the environment names, or None.

    ``TEST_CLUSTER`` is the path of a kubeconfig, or the name of a context in the one that ``KUBECONFIG`` names. A
    ``KUBECONFIG`` alone is not enough: tests install CRDs, and somebody may have pointed it at a hospital.
    """
    chosen, kubeconfig = os.environ.get("TEST_CLUSTER", ""), os.environ.get("KUBECONFIG", "")
    if not chosen:
        return None
    if Path(chosen).is_file():
        return Kubectl(programs(["kubectl"])["kubectl"], Path(chosen))
    if not kubeconfig:
        raise ClusterError("TEST_CLUSTER is no kubeconfig file, and there is no KUBECONFIG with a context of this name")
    return Kubectl(programs(["kubectl"])["kubectl"], Path(kubeconfig), context=chosen)
