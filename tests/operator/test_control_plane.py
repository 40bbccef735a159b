"""What the other tests of this folder rely on: a real API server that can be stopped, killed and started again."""

import pytest

from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl, KubectlError


@pytest.mark.parametrize("kill", [False, True])
def test_objects_survive_the_api_server(control_plane: ControlPlane, own_cluster: Kubectl, kill: bool) -> None:
    namespace = own_cluster.new_namespace()
    own_cluster.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "b"}}, namespace=namespace
    )
    control_plane.stop_api_server(kill=kill)
    assert not control_plane.is_ready()
    with pytest.raises(KubectlError, match="refused"):
        own_cluster.get("configmap", "kept", namespace)
    control_plane.start_api_server()
    kept = own_cluster.get("configmap", "kept", namespace)
    assert kept is not None
    assert kept["data"] == {"a": "b"}
    own_cluster.delete("namespace", namespace)
    assert own_cluster.get("namespace", namespace) is None


def test_owned_objects_are_collected(own_cluster: Kubectl) -> None:
    namespace = own_cluster.new_namespace()
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}
    own_cluster.create(owner, namespace=namespace)
    created = own_cluster.get("configmap", "owner", namespace)
    assert created is not None
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": created["metadata"]["uid"]}
    owned = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "owned", "ownerReferences": [{**reference, "controller": True}]},
    }
    own_cluster.create(owned, namespace=namespace)
    own_cluster.delete("configmap", "owner", namespace)
    own_cluster.wait_gone("secret", "owned", namespace)
