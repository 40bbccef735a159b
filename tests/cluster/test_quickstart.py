"""The page docs/quickstart-kubernetes.md, step by step; and the same system asked more closely."""

import json
from pathlib import Path

import httpx
import pydicom
from pydicom.data import get_testdata_file

from cluster.kubectl import until
from cluster.modality import more_than, sending
from cluster.quickstart import INSTALL, INSTANCE, STUDIES, Quickstart, ready_column
from cluster.system import RELEASE, System
from imaging_services.local.ports import free_ports
from support.dicom_files import data_set_of, storable_files
from support.senders import send_undecoded


def test_installing_brings_the_operator_and_the_servers(quickstart: Quickstart) -> None:
    assert "STATUS: deployed" in quickstart.transcript.outputs[INSTALL]
    shown = quickstart.transcript.outputs["kubectl -n imaging get pods"]
    assert shown.count("1/1     Running") == 4


def test_helm_test_finds_the_operator_and_the_servers(system: System) -> None:
    shown = system.helm("test", RELEASE, "--timeout", "3m")
    assert "Succeeded" in next(line for line in shown.splitlines() if line.startswith("Phase"))


def test_every_resource_becomes_ready(quickstart: Quickstart) -> None:
    assert ready_column(quickstart.transcript.outputs["kubectl -n imaging get imaging"]) == ["true"] * 6


def test_storescu_is_answered_with_success(quickstart: Quickstart) -> None:
    (shown,) = (text for command, text in quickstart.transcript.outputs.items() if command.startswith("storescu"))
    assert shown.count("Received Store Response (Success)") == 2


def test_the_study_is_found_and_read_back(quickstart: Quickstart) -> None:
    (shown,) = (text for command, text in quickstart.transcript.outputs.items() if "json.tool" in command)
    (study,) = json.loads(shown)
    assert study["0020000D"]["Value"] == [STUDIES[0]]
    back, sent = (
        pydicom.dcmread(quickstart.folder / "back.dcm"),
        pydicom.dcmread(str(get_testdata_file("CT_small.dcm"))),
    )
    assert back.SOPInstanceUID == INSTANCE.rpartition("/")[2]
    assert back.PixelData == sent.PixelData


def test_the_subscriber_hears_of_instances_and_studies(quickstart: Quickstart) -> None:
    shown = quickstart.transcript.outputs["kubectl -n imaging logs deployment/subscriber"]
    types = [line.split()[0] for line in shown.splitlines()]
    assert types == ["DicomAvailableEvent"] * 2 + ["StudyRevisionEvent"] * 2


def test_data_sets_come_back_byte_for_byte(system: System, tmp_path: Path) -> None:
    files = [file for file in storable_files() if len(file.data_set) < 500_000][:12]
    statuses = send_undecoded(files, system.dicom, tmp_path)
    stored = {file.identity: file for file in files if statuses[file.path] == 0}
    assert len(stored) >= 8
    for file in stored.values():
        system.wait_stored(file.study_instance_uid, [file.sop_instance_uid])
    (port,) = free_ports(1)
    with system.forwarded("north-wado", port), httpx.Client(base_url=f"http://127.0.0.1:{port}/wado-rs") as client:
        for file in stored.values():
            answer = client.get(file.resource, headers={"Accept": "application/dicom"}, timeout=60).raise_for_status()
            assert data_set_of(answer.content) == file.data_set, file.path.name


def test_a_changed_resource_changes_its_pods(system: System) -> None:
    wish = {"wadoService": {"minReplicas": 2, "maxReplicas": 2}, "allowDelete": True}
    system.kubectl.patch("dicomwebingestionservice", "north", {"spec": wish}, "imaging")
    until(lambda: _replicas(system) == 2, account=system.account)
    system.wait_ready()
    _store_and_delete(system)
    former = dict.fromkeys(wish)
    system.kubectl.patch("dicomwebingestionservice", "north", {"spec": former}, "imaging")
    until(lambda: _replicas(system) == 1, account=system.account)
    system.wait_ready()


def _store_and_delete(system: System) -> None:
    with sending(1, system.dicom) as (modality,):
        until(more_than([modality], 5))
    assert modality.failures == []
    system.wait_stored(modality.study, modality.acknowledged)
    (port,) = free_ports(1)
    with system.forwarded("north-wado", port), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.delete(f"/dicomweb/studies/{modality.study}", timeout=60).status_code == 204
        assert client.get(f"/wado-rs/studies/{modality.study}", timeout=60).status_code == 404
    assert system.stored(modality.study) == set()


def _replicas(system: System) -> int:
    deployment = system.kubectl.get("deployment", "north-wado", "imaging")
    return int(deployment["status"].get("readyReplicas", 0)) if deployment else 0
