"""Every pair of ``tests/data/operator`` on a real API server: the resource goes in, the objects come out."""

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl, until
from imaging_operator.builders.names import CREATE_ONLY
from imaging_operator.kinds import KINDS
from imaging_operator.kinds.common import Json
from imaging_operator.resources import BROKER, KNATIVE_SERVICE, OWNED, SCALED_OBJECT, SINK_BINDING, TRIGGER
from support import operator_crds as crds
from support.operator_cluster import answer_as_knative, config_map, database, secret
from support.operator_kinds import Case, cases, wanted
from support.operator_process import OperatorProcess, grant, restricted_kubeconfig, revoke_everywhere

MODES = {
    "plain": {"KNATIVE": "off"},
    "knative": {"KNATIVE": "on", "EVENTS_NATS_URL": ""},
    "keda": {"KNATIVE": "off"},
}
OPTIONAL = {"plain": (), "knative": (BROKER, KNATIVE_SERVICE, SINK_BINDING, TRIGGER), "keda": (SCALED_OBJECT,)}
CORE = [each for each in OWNED if not any(each in group for group in OPTIONAL.values())]
EVERYTHING = {
    mode: ",".join(
        [
            "secrets",
            *(f"{kind.plural}.imaging-ingestion.alvearie.org" for kind in KINDS.values()),
            *(f"{each.plural}.{each.group}" if each.group else each.plural for each in (*CORE, *optional)),
        ]
    )
    for mode, optional in OPTIONAL.items()
}
"""What kubectl gets in one go."""


@pytest.fixture(scope="module")
def mode(request: pytest.FixtureRequest) -> str:
    """One operator after the other: plain, with Knative, with KEDA."""
    return str(request.param)


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory, mode: str
) -> Iterator[OperatorProcess]:
    """An operator of the whole cluster, with the settings that the pairs were written for."""
    kubectl = Kubectl(control_plane.programs["kubectl"], control_plane.kubeconfig)
    definitions = {"plain": (), "knative": crds.knative(), "keda": crds.keda()}[mode]
    if definitions:
        crds.install(kubectl, definitions)
    home = kubectl.new_namespace("operator")
    grant(kubectl, lease_namespace=home)
    settings = {"EVENTS_NATS_URL": "nats://nats.messaging.svc:4222", **MODES[mode], "IMAGE": "imaging-ingestion:0.1.0"}
    folder = tmp_path_factory.mktemp(mode)
    with OperatorProcess(folder, restricted_kubeconfig(control_plane), home, **settings) as process:
        yield process
        assert process.forbidden() == []
        assert process.stop() == 0
    revoke_everywhere(kubectl)
    crds.remove(kubectl, definitions)


@pytest.fixture
def namespace(own_cluster: Kubectl) -> Iterator[str]:
    """With what every DicomEventDrivenIngestion of the pairs refers to."""
    name = own_cluster.new_namespace("pair")
    own_cluster.apply(
        secret("db-secret", {"DB_USER": "u", "DB_PASS": "p"}), config_map("db-config", database()), namespace=name
    )
    yield name
    own_cluster.delete("namespace", name, wait=False)


def pairs() -> list[Any]:
    """A parameter for each pair: its mode chooses the operator."""
    return [pytest.param(each.path.parent.name, each, id=each.name) for each in cases()]


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(("mode", "case"), pairs(), indirect=["mode"], scope="module")
def test_the_objects_of_a_pair_are_made(own_cluster: Kubectl, namespace: str, mode: str, case: Case) -> None:
    """The cluster comes to what ``build`` says of the resource and its references as they are there."""
    documents = [_placed(document, namespace) for document in case.documents()]
    own_cluster.apply(*reversed(documents), namespace=namespace)
    resource = documents[0]
    differences = ["nothing was made"]

    def is_as_wanted() -> bool:
        nonlocal differences
        if mode == "knative":
            answer_as_knative(own_cluster, namespace)
        differences = _state(own_cluster, namespace, case, resource)
        return not differences

    until(is_as_wanted, account=lambda: "\n".join(differences))


def _state(kubectl: Kubectl, namespace: str, case: Case, resource: Json) -> list[str]:
    """What is not yet as it should be."""
    there = kubectl.objects(EVERYTHING[case.path.parent.name], namespace)
    live = next(each for each in there if _key(each) == _key(resource))
    status = live.get("status") or {}
    if status.get("phase") not in ("Initializing", "Reconciling"):
        return [f"status: {status.get('phase')}: {status.get('message')}"]
    wanted_now = KINDS[resource["kind"]].build(wanted(live, there, case.features), case.settings)
    found = {_key(each): each for each in there}
    made = {key for key, each in found.items() if _is_owned_by(each, live)}
    unwanted = [f"{key} is not wanted" for key in made - {_key(each) for each in wanted_now}]
    return [each for document in wanted_now for each in _compared(document, found.get(_key(document)))] + unwanted


def _compared(document: Json, found: Json | None) -> list[str]:
    if found and CREATE_ONLY in (document["metadata"].get("annotations") or {}):
        return []  # it is the user's
    return [f"{_key(document)}{each}" for each in _differences(document, found)]


def _placed(document: Json, namespace: str) -> Json:
    """In the test's namespace, and without what a controller said."""
    placed = {key: value for key, value in document.items() if key != "status"}
    return placed | {"metadata": document["metadata"] | {"namespace": namespace}}


def _key(document: Json) -> tuple[str, str, str]:
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def _is_owned_by(document: Json, owner: Json) -> bool:
    references = document["metadata"].get("ownerReferences") or []
    return any(each["uid"] == owner["metadata"]["uid"] for each in references)


def _differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """What is not as expected; members that the API server added are fine, and so are empty ones that it left out."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return [each for key in expected for each in _differences(expected[key], found.get(key), f"{path}.{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [each for number, (one, other) in pairs for each in _differences(one, other, f"{path}[{number}]")]
    if expected == found or (expected == "" and found is None):
        return []
    return [f"{path}: {expected!r} expected, {found!r} found"]
