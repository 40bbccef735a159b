"""The Jobs of examples/kubernetes give commands what they know: options, and variables of the environment."""

from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from imaging_services.cli.__main__ import build
from imaging_services.cli.target import TargetSettings

EXAMPLES = Path(__file__).parents[3] / "examples" / "kubernetes"


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    job = document["spec"]["jobTemplate"] if document["kind"] == "CronJob" else document
    return job["spec"]["template"]["spec"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["audit-job.yaml", "rebuild-job.yaml"])
def test_the_command_takes_what_it_is_given(name: str) -> None:
    pod = pod_of(yaml.safe_load((EXAMPLES / name).read_text()))
    (container,) = pod["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    assert set(given) <= set(TargetSettings.model_fields)
    group: Any = typer.main.get_command(build(["--help"]))
    command, *arguments = container["args"]
    parsed = group.commands[command].make_context(command, arguments)
    assert parsed.params["data_dir"] is None
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert {given["BUCKET_CONFIG_PATH"], given["BUCKET_SECRET_PATH"], "/tmp"} == mounted
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}


def test_both_name_the_servers_of_the_complete_system() -> None:
    system = list(yaml.safe_load_all((EXAMPLES / "complete-system.yaml").read_text()))
    space = next(one for one in system if one["kind"] == "DicomwebIngestionService")
    ingestion = next(one for one in system if one["kind"] == "DicomEventDrivenIngestion")
    for name in ("audit-job.yaml", "rebuild-job.yaml"):
        pod = pod_of(yaml.safe_load((EXAMPLES / name).read_text()))
        (container,) = pod["containers"]
        given = {one["name"]: one["value"] for one in container["env"]}
        assert given["PROVIDER_NAME"] == space["spec"]["providerName"]
        assert given["WADO_INTERNAL_ENDPOINT"].startswith(f"http://{space['metadata']['name']}-wado.")
        assert given.get("EVENTS_STREAM", "imaging_main").endswith(f"_{ingestion['metadata']['name']}")
        names = [next(iter(one.values()))["name"] for one in container["envFrom"]]
        assert names == [ingestion["spec"]["databaseConfigName"], ingestion["spec"]["databaseSecretName"]]
        assert pod["volumes"][0]["configMap"]["name"] == space["spec"]["bucketConfigName"]
        assert pod["volumes"][1]["secret"]["secretName"] == space["spec"]["bucketSecretName"]
