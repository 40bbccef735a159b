"""The chart and the examples against a real API server: taken as they are, installed, upgraded, uninstalled."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kubectl import Kubectl, KubectlError
from support.chart_values import VALUE_SETS
from support.helm import CHART, ROOT, Helm, HelmError

pytestmark = pytest.mark.timeout(900)  # the first one may have to build Helm

Json = dict[str, Any]
EXAMPLES = sorted(
    path
    for path in (ROOT / "examples" / "kubernetes").glob("*.yaml")
    if path.name != "kind.yaml" and not path.name.endswith("-values.yaml")
)
CRD = "customresourcedefinition"
PROXIES = "dimseproxies.imaging-ingestion.alvearie.org"
SERVICE_MONITOR: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "names": {"kind": "ServiceMonitor", "plural": "servicemonitors"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture
def helm(own_cluster: Kubectl, tmp_path: Path) -> Helm:
    return Helm(tmp_path, own_cluster.kubeconfig)


@pytest.fixture
def restricted(own_cluster: Kubectl) -> Iterator[str]:
    """A namespace that takes restricted pods only."""
    name = own_cluster.new_namespace("chart")
    own_cluster("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    own_cluster("label", "namespace", name, "pod-security.kubernetes.io/warn=restricted")
    yield name
    own_cluster.delete("namespace", name, wait=False)


@pytest.fixture(scope="session")
def service_monitors(control_plane: Any) -> None:
    """The CRD of the Prometheus operator, without its fields."""
    kubectl = Kubectl(control_plane.programs["kubectl"], control_plane.kubeconfig)
    kubectl.apply(SERVICE_MONITOR)
    kubectl("wait", "--for=condition=Established", f"crd/{SERVICE_MONITOR['metadata']['name']}", "--timeout=60s")


@pytest.mark.usefixtures("service_monitors")
@pytest.mark.parametrize("name", VALUE_SETS)
def test_the_api_server_takes_every_object(name: str, own_cluster: Kubectl, restricted: str, helm: Helm) -> None:
    values = dict(VALUE_SETS[name])
    if values.get("watch"):
        values["watch"] = {"namespaces": [restricted]}
    documents = helm.render(values, namespace=restricted)
    assert documents
    text = yaml.safe_dump_all(documents)
    strict = ("--validate=strict", "--warnings-as-errors")  # a pod that is not restricted would be a warning
    dry = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", *strict, "-f", "-")
    answer = own_cluster(*dry, stdin=text)
    assert len(answer.splitlines()) == len(documents)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_api_server_takes_every_example(path: Path, own_cluster: Kubectl, restricted: str) -> None:
    strict = ("--validate=strict", "--warnings-as-errors")
    answer = own_cluster("apply", "-n", restricted, "--server-side", *strict, "-f", path)
    assert len(answer.splitlines()) == len(list(yaml.safe_load_all(path.read_text())))


def test_examples_show_every_kind(own_cluster: Kubectl) -> None:
    shown = {one["kind"] for path in EXAMPLES for one in yaml.safe_load_all(path.read_text())}
    ours = {one["spec"]["names"]["kind"] for one in own_cluster.objects("crd") if "alvearie" in one["spec"]["group"]}
    assert ours <= shown


def test_the_category_names_every_resource(own_cluster: Kubectl, restricted: str) -> None:
    own_cluster("apply", "-n", restricted, "-f", ROOT / "examples" / "kubernetes" / "complete-system.yaml")
    shown = own_cluster("-n", restricted, "get", "imaging", "-o", "name").split()
    assert {one.partition(".")[0] for one in shown} == {
        "dicomeventdriveningestion",
        "dicominstancebinding",
        "dicomstudybinding",
        "dicomwebingestionservice",
        "dimseingestionservice",
        "dimseproxy",
    }
    own_cluster("-n", restricted, "delete", "imaging", "--all")
    assert own_cluster("-n", restricted, "get", "imaging", "-o", "name") == ""


def test_a_misspelt_field_would_be_noticed(own_cluster: Kubectl, restricted: str) -> None:
    text = (ROOT / "examples" / "kubernetes" / "proxy-pair.yaml").read_text().replace("deliveryMode", "deliverymode")
    with pytest.raises(KubectlError, match=r"field not declared in schema|unknown field"):
        own_cluster("apply", "-n", restricted, "--server-side", "--validate=strict", "-f", "-", stdin=text)


def test_install_upgrade_uninstall(own_cluster: Kubectl, restricted: str, helm: Helm) -> None:
    where = ("--namespace", restricted)
    values = {**VALUE_SETS["trial"], "crds": {"adopt": False}}
    notes = helm("install", "imaging", CHART, *where, values=values)
    # The fixtures made the CRDs with kubectl: they are somebody else's.
    assert f"The CRD {PROXIES} is not this release's" in notes
    assert "databaseConfigName: imaging-database" in notes
    first = secrets(own_cluster, restricted)

    helm("upgrade", "imaging", CHART, *where, values={**values, "operator": {"replicas": 2}})
    assert secrets(own_cluster, restricted) == first
    assert own_cluster.get("pdb", "imaging-operator", restricted)

    with pytest.raises(HelmError, match="invalid ownership metadata"):
        helm("upgrade", "imaging", CHART, *where, values={**values, "crds": {"adopt": True}})
    adopt = ("upgrade", "imaging", CHART, *where, "--take-ownership")
    helm(*adopt, values={**values, "crds": {"adopt": True}})
    owner = "meta.helm.sh/release-namespace"
    assert annotations(own_cluster)[owner] == restricted

    own_cluster.patch(CRD, PROXIES, {"metadata": {"labels": {"app.kubernetes.io/component": "old"}}})
    notes = helm("upgrade", "imaging", CHART, *where, values=values)
    assert "is not this release's" not in notes
    labels = (own_cluster.get(CRD, PROXIES) or {})["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "crd"

    helm("uninstall", "imaging", *where)
    assert own_cluster.get(CRD, PROXIES), "the resources would be gone with it"
    kinds = "deployments,statefulsets,secrets,services,roles,rolebindings,networkpolicies,serviceaccounts,pdb"
    left = own_cluster.objects(kinds, restricted, selector="app.kubernetes.io/name=imaging-ingestion")
    assert left == []
    assert not own_cluster.get("clusterrole", f"{restricted}-imaging-operator")

    # Installed again: the kept CRDs are still known as this release's.
    assert "is not this release's" not in helm("install", "imaging", CHART, *where, values={})
    helm("uninstall", "imaging", *where)
    disown(own_cluster)


def secrets(kubectl: Kubectl, namespace: str) -> dict[str, str]:
    """Everything that was generated."""
    found = {}
    for name in ("imaging-database", "imaging-bucket"):
        data = (kubectl.get("secret", name, namespace) or {})["data"]
        found |= {key: base64.b64decode(value).decode() for key, value in data.items()}
    assert len(found["DB_PASS"]) == 32
    assert len(found["AWS_SECRET_ACCESS_KEY"]) == 40
    return found


def annotations(kubectl: Kubectl) -> dict[str, str]:
    """Those of one CRD."""
    found: dict[str, str] = (kubectl.get(CRD, PROXIES) or {})["metadata"]["annotations"]
    return found


def disown(kubectl: Kubectl) -> None:
    """The CRDs belong to nobody's release again, for the next test."""
    for path in (ROOT / "crds").glob("*.yaml"):
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        kubectl("annotate", CRD, name, "meta.helm.sh/release-name-", "meta.helm.sh/release-namespace-")
