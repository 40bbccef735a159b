"""The chart as Helm renders it: values, names and what pods are given. The API server's word is in tests/operator."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from imaging_operator.settings import OperatorSettings
from imaging_services.cli.backend import SERVERS
from imaging_services.local.backend import NatsBackendSettings
from support.chart_values import VALUE_SETS
from support.helm import CHART, ROOT, Helm, HelmError

TRIAL = VALUE_SETS["trial"]


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))


def only(documents: list[Any], kind: str, name: str) -> Any:
    (found,) = [one for one in documents if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def pod_specs(documents: list[Any]) -> Iterator[tuple[str, Any]]:
    for document in documents:
        if document["kind"] in ("Deployment", "StatefulSet"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]
        elif document["kind"] == "Pod":
            yield document["metadata"]["name"], document["spec"]


def variables(documents: list[Any]) -> dict[str, str]:
    (container,) = only(documents, "Deployment", "imaging-operator")["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_lint_finds_nothing(name: str, helm: Helm) -> None:
    helm("lint", "--strict", CHART, values=VALUE_SETS[name])


def test_crds_are_those_of_the_repository() -> None:
    ours = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    assert len(ours) == 7
    assert {path.name: path.read_text() for path in (CHART / "files" / "crds").glob("*.yaml")} == ours, (
        "run 'make crds'"
    )


@pytest.mark.parametrize(("keep", "policy"), [(True, "keep"), (False, "delete")])
def test_crds_are_rendered_unchanged_but_for_what_uninstalling_does(keep: bool, policy: str, helm: Helm) -> None:
    rendered = [one for one in helm.render({"crds": {"keep": keep}}) if one["kind"] == "CustomResourceDefinition"]
    assert {one["metadata"].pop("annotations")["helm.sh/resource-policy"] for one in rendered} == {policy}
    ours = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert sorted(rendered, key=lambda one: one["metadata"]["name"]) == ours


def test_crds_may_be_left_out(helm: Helm) -> None:
    assert not [one for one in helm.render({"crds": {"install": False}}) if one["kind"] == "CustomResourceDefinition"]


def test_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert chart["appVersion"] == version
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()


def test_every_variable_of_the_operator_is_one_of_its_settings(helm: Helm) -> None:
    given = variables(helm.render(VALUE_SETS["everything"]))
    assert set(given) - {"SOME_VARIABLE"} <= set(OperatorSettings.model_fields)
    assert given["SOME_VARIABLE"] == "1"
    settings = OperatorSettings.model_validate(given)
    assert settings.KNATIVE
    assert settings.namespaces == ("imaging", "other")


def test_the_defaults_watch_everything_without_knative(helm: Helm) -> None:
    settings = OperatorSettings.model_validate(variables(helm.render({})))
    assert settings.namespaces == ()
    assert (settings.KNATIVE, settings.KEDA, settings.NETWORK_POLICY, settings.LEADER_ELECTION) == (
        False,
        True,
        True,
        True,
    )
    assert settings.EVENTS_NATS_URL == ""


def test_the_nats_server_is_the_given_one_else_the_trial_one(helm: Helm) -> None:
    trial = "nats://imaging-nats.imaging.svc.cluster.local:4222"
    assert variables(helm.render(TRIAL))["EVENTS_NATS_URL"] == trial
    given = {"nats": {"enabled": True, "url": "nats://a:4222,nats://b:4222"}}
    assert variables(helm.render(given))["EVENTS_NATS_URL"] == given["nats"]["url"]


def test_edges_dial_the_trial_server_where_that_is_asked_for(helm: Helm) -> None:
    values = {**TRIAL, "nats": {"enabled": True, "leafNodes": {"enabled": True, "password": "of-the-edges"}}}
    documents = {(one["kind"], one["metadata"]["name"]): one for one in helm.render(values)}
    (container,) = documents["StatefulSet", "imaging-nats"]["spec"]["template"]["spec"]["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    given |= documents["Secret", container["envFrom"][0]["secretRef"]["name"]]["stringData"]
    backend = NatsBackendSettings.model_validate(given)
    assert (backend.BACKEND_LEAF_NODE_PORT, backend.BACKEND_LEAF_NODE_USER) == (7422, "edge")
    assert backend.BACKEND_LEAF_NODE_PASSWORD is not None
    assert backend.BACKEND_LEAF_NODE_PASSWORD.get_secret_value() == "of-the-edges"
    assert backend.BACKEND_JETSTREAM_DOMAIN == "hub"
    ports = {one["name"]: one["port"] for one in documents["Service", "imaging-nats"]["spec"]["ports"]}
    assert ports["tcp-leaf-nodes"] == 7422
    assert "imaging-leaf-nodes" not in {one["metadata"]["name"] for one in helm.render(TRIAL)}


def test_rights_are_in_the_watched_namespaces_alone(helm: Helm) -> None:
    documents = helm.render({"watch": {"namespaces": ["a", "b"]}})
    assert not [one for one in documents if one["kind"].startswith("ClusterRole")]
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    roles = [
        one for one in documents if one["kind"] == "Role" and one["metadata"]["name"] == "imaging-imaging-operator"
    ]
    assert {one["metadata"]["namespace"]: one["rules"] for one in roles} == {"a": rules, "b": rules}
    (cluster,) = [one for one in helm.render({}) if one["kind"] == "ClusterRole"]
    assert cluster["rules"] == rules


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_pod_is_restricted_and_read_only(name: str, helm: Helm) -> None:
    pods = list(pod_specs(helm.render(VALUE_SETS[name])))
    assert pods
    for pod, spec in pods:
        assert spec["securityContext"]["runAsNonRoot"] is True, pod
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        assert spec["automountServiceAccountToken"] is pod.endswith("-operator"), pod
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, pod
            assert {"requests", "limits"} <= set(container["resources"]), pod


def test_trial_servers_get_the_settings_that_resources_are_given(helm: Helm) -> None:
    documents = helm.render(TRIAL)
    for server, backend, name in (("postgresql", "postgres", "database"), ("s3", "s3", "bucket"), ("nats", "nats", "")):
        spec = only(documents, "StatefulSet", f"imaging-{server}")["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["args"] == ["backend", backend]
        if name:
            config = only(documents, "ConfigMap", f"imaging-{name}")["data"]
            secret = only(documents, "Secret", f"imaging-{name}")["stringData"]
            settings = SERVERS[next(one for one in SERVERS if one == backend)][0].model_validate({**config, **secret})
            (port,) = [one["containerPort"] for one in container["ports"] if one["name"] == "server"]
            assert port in (getattr(settings, "DB_PORT", None), getattr(settings, "BUCKET_PORT", None))
            assert [next(iter(one.values()))["name"] for one in container["envFrom"]] == [f"imaging-{name}"] * 2


def test_helm_test_asks_every_server(helm: Helm) -> None:
    (pod,) = [one for one in helm.render(TRIAL) if one["kind"] == "Pod"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    *command, operator, nats, postgres, s3 = pod["spec"]["containers"][0]["command"]
    host = "svc.cluster.local"
    assert operator == f"http://imaging-operator.imaging.{host}:8081/readyz"
    assert (nats, postgres) == (
        f"tcp://imaging-nats.imaging.{host}:4222",
        f"tcp://imaging-postgresql.imaging.{host}:5432",
    )
    assert s3 == f"tcp://imaging-s3.imaging.{host}:8333"
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run([sys.executable, *command[1:], target], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{target} answers\n")


def test_data_goes_with_the_release_unless_it_is_to_be_kept(helm: Helm) -> None:
    def kept(values: Mapping[str, Any]) -> set[tuple[str, str | None]]:
        documents = helm.render(values)
        policies = [
            one["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"]
            for one in documents
            if one["kind"] == "StatefulSet"
        ]
        notes = [one["metadata"].get("annotations", {}) for one in documents if one["kind"] == "Secret"]
        return {(policy, note.get("helm.sh/resource-policy")) for policy in policies for note in notes}

    assert kept(TRIAL) == {("Delete", None)}
    assert kept({**TRIAL, "trial": {"keepData": True}}) == {("Retain", "keep")}


def test_a_digest_wins_over_the_tag(helm: Helm) -> None:
    digest = "sha256:" + "0" * 64
    image = {"repository": "registry.example.org:5000/imaging", "tag": "1", "digest": digest}
    assert variables(helm.render({"image": image}))["IMAGE"] == f"registry.example.org:5000/imaging@{digest}"


WRONG = {
    "operator.replicas": ({"operator": {"replicas": "two"}}, "at '/operator/replicas': got string, want integer"),
    "misspelt": ({"operator": {"replica": 2}}, "at '/operator': additional properties 'replica' not allowed"),
    "unknown": ({"rabbitmq": {}}, "at '': additional properties 'rabbitmq' not allowed"),
    "pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "value must be one of 'Always', 'IfNotPresent', 'Never'"),
    "nats.url": ({"nats": {"url": "http://nats"}}, "at '/nats/url': 'http://nats' does not match pattern"),
    "credentials in nats.url": ({"nats": {"url": "nats://user:word@nats"}}, "at '/nats/url'"),
    "short password": ({"postgresql": {"password": "short"}}, "at '/postgresql/password'"),
    "bucket": ({"s3": {"bucket": "Not A Bucket"}}, "at '/s3/bucket'"),
    "namespace": ({"watch": {"namespaces": ["A_B"]}}, "at '/watch/namespaces/0'"),
    "quantity": ({"s3": {"persistence": {"size": "much"}}}, "at '/s3/persistence/size'"),
    "log level": ({"operator": {"logLevel": "verbose"}}, "at '/operator/logLevel'"),
    "no lease": (
        {"operator": {"replicas": 2, "leaderElection": False}},
        "operator.replicas above 1 needs operator.leaderElection",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_by_name(name: str, helm: Helm) -> None:
    values, message = WRONG[name]
    with pytest.raises(HelmError, match=re.escape(message)):
        helm.render(values)


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert compared(values, schema, schema["$defs"]) == []


def compared(values: Any, schema: Any, definitions: Any, path: str = "") -> list[str]:
    """Objects whose members the schema and values.yaml do not share."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "properties" not in schema or not isinstance(values, dict):
        return []
    differing = set(values) ^ set(schema["properties"]) - {"global", "claims"}
    found = [f"{path}: {sorted(differing)}"] if differing else []
    assert schema["additionalProperties"] is False, path
    for name in set(values) & set(schema["properties"]):
        found += compared(values[name], schema["properties"][name], definitions, f"{path}/{name}")
    return found


def test_value_files_of_the_examples_are_tried() -> None:
    files = {path.name.removesuffix("-values.yaml") for path in (ROOT / "examples/kubernetes").glob("*-values.yaml")}
    assert files == {"trial", "production"}
    assert files <= set(VALUE_SETS)
