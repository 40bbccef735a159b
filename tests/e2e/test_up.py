"""``imaging up`` as a user or script starts it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pynetdicom import AE

from imaging_services.local.configuration import DEFAULT_PORTS
from support.stack import Stack, imaging_up

pytestmark = pytest.mark.timeout(300)

SERVICES = {"nats", "postgres", "s3", "event-processor", "dimse-ingestion", "dicomweb", "dimse-proxy"}


def get(url: str) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}", headers={"Accept": "application/dicom+json"})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, json.loads(body) if body else None


def store(address: dict[str, Any], name: str) -> pydicom.Dataset:
    data_set = pydicom.dcmread(str(get_testdata_file(name)))
    ae = AE()
    ae.add_requested_context(data_set.SOPClassUID, data_set.file_meta.TransferSyntaxUID)
    association = ae.associate(address["host"], address["port"], ae_title=address["ae_title"])
    assert association.is_established
    status = association.send_c_store(data_set)
    association.release()
    assert status.Status == 0
    return data_set


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
    return result


def alive(process: psutil.Process) -> bool:
    """False also for one that has ended and that nobody has waited for: in a container process 1 may not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def found(stack: Stack, data_set: pydicom.Dataset) -> bool:
    status, matches = get(f"{stack.url('dicomweb')}/studies?StudyInstanceUID={data_set.StudyInstanceUID}")
    return status == 200 and len(matches) == 1


def test_endpoints_crash_and_restart_of_the_whole(tmp_path: Path) -> None:
    with imaging_up(tmp_path) as stack:
        ready = stack.ready
        assert_ready_file(stack)
        data_set = store(ready["dimse_proxy"], "CT_small.dcm")
        until(lambda: found(stack, data_set))
        assert_listens_on_loopback_only(ready["pids"])
        assert_second_start_is_refused(tmp_path)

        killed = ready["pids"]["dimse-ingestion"]
        os.kill(killed, signal.SIGKILL)
        until(lambda: stack.ready["pids"].get("dimse-ingestion", killed) != killed)
        another = store(stack.ready["dimse_ingestion"], "MR_small.dcm")
        until(lambda: found(stack, another))
        assert "dimse-ingestion was ended by SIGKILL" in stack.log.read_text()

        children = [psutil.Process(pid) for pid in stack.ready["pids"].values()]
        assert stack.stop() == 0
        assert [child for child in children if alive(child)] == []
        assert not stack.ready_file.exists()

    with imaging_up(tmp_path) as stack:
        again = stack.ready
        assert {**again, "pids": 0} == {**ready, "pids": 0}
        assert found(stack, data_set)
        assert found(stack, another)
        assert get(f"{stack.url('query')}/counts")[1]["instances"] == 2
        assert_doctor_is_content(tmp_path)


def assert_ready_file(stack: Stack) -> None:
    ready = stack.ready
    assert set(ready["pids"]) == SERVICES
    for name in ("dimse_proxy", "dimse_ingestion"):
        assert set(ready[name]) == {"host", "port", "ae_title"}
    assert {"endpoint", "bucket", "access_key_id", "secret_access_key"} <= set(ready["s3"])
    assert ready["nats"].startswith("nats://")
    assert ready["postgres"].startswith("postgresql://")
    assert get(f"{stack.url('query')}/counts")[0] == 200
    assert stack.ready_file.stat().st_mode & 0o777 == 0o600


def assert_listens_on_loopback_only(pids: dict[str, int]) -> None:
    for name, pid in pids.items():
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            listening = {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
            assert listening <= {"127.0.0.1"}, name


def assert_second_start_is_refused(tmp_path: Path) -> None:
    imaging = [str(Path(sys.executable).with_name("imaging"))]
    command = [*imaging, "up", "--ports", "auto", "--data-dir", str(tmp_path / "data")]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    assert "another imaging up (process" in second.stderr
    assert "Traceback" not in second.stderr


def assert_doctor_is_content(tmp_path: Path) -> None:
    imaging = str(Path(sys.executable).with_name("imaging"))
    command = [imaging, "doctor", "--json", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert [finding for finding in findings if not finding["good"]] == []
    assert len(findings) >= 9
    assert done.returncode == 0


def test_a_supervisor_that_is_killed_leaves_nothing_and_starts_again(tmp_path: Path) -> None:
    with imaging_up(tmp_path) as stack:
        data_set = store(stack.ready["dimse_ingestion"], "CT_small.dcm")
        children = [psutil.Process(pid) for pid in stack.ready["pids"].values()]
        stack.process.kill()
        stack.process.wait()
        until(lambda: not any(alive(child) for child in children))
    with imaging_up(tmp_path) as stack:
        until(lambda: found(stack, data_set))


def test_the_demo_shows_every_step(tmp_path: Path) -> None:
    imaging = str(Path(sys.executable).with_name("imaging"))
    command = [imaging, "up", "--demo", "--exit", "--ports", "auto", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(
        [*command, "--revisioning-delay", "1"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("sent through the proxy", "recorded", "found by QIDO-RS", "read back", "announced", "study revisions"):
        # A step that waits for nothing would show 0 of 0.
        assert re.search(rf"✓ {step}.* 14 of 14 ", done.stdout), done.stdout


def up(*options: str) -> subprocess.CompletedProcess[str]:
    """``imaging up`` that is expected to end by itself."""
    command = [str(Path(sys.executable).with_name("imaging")), "up", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_cannot_start_says_so_in_one_sentence(tmp_path: Path) -> None:
    state = {"ports": {"nats": 1}, "name": "north"}
    (tmp_path / "state.json").write_text(json.dumps(state))
    refusals = {
        ("--instance-binding", "ftp://archive/studies"): "use dimse://AE@host:port",
        ("--instance-binding", "dimse://nobody"): "ORTHANC@127.0.0.1:4242",
        ("--study-binding", "nonsense"): "--study-binding nonsense: not a URL",
        ("--name", "a b"): "--name a b: use letters, digits and '-'",
        ("--name", "south"): "belongs to 'north'",
    }
    for option, sentence in refusals.items():
        done = up("--ports", "auto", "--data-dir", str(tmp_path), *option)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith("imaging: ")
        assert sentence in done.stderr
    done = up("--data-dir", str(tmp_path), "--prots", "auto")
    assert done.returncode == 2
    assert "No such option: --prots" in done.stderr


def test_a_taken_port_is_named() -> None:
    holder = socket.socket()
    try:
        holder.bind(("127.0.0.1", DEFAULT_PORTS["dicomweb"]))
        holder.listen()
    except OSError:
        pass  # another program has it, which serves as well
    with holder, tempfile.TemporaryDirectory() as folder:
        done = up("--data-dir", folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"{DEFAULT_PORTS['dicomweb']} (dicomweb)" in done.stderr
    assert "--ports auto" in done.stderr


def test_control_c_ends_a_running_stack_and_a_starting_one_soon(tmp_path: Path) -> None:
    with imaging_up(tmp_path) as stack:
        assert stack.stop() == 0
    assert "was killed" not in stack.log.read_text()  # as whoever does not stop within his time is
    command = [
        str(Path(sys.executable).with_name("imaging")),
        "up",
        "--ports",
        "auto",
        "--data-dir",
        str(tmp_path / "data"),
    ]
    starting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert starting.stdout is not None
        assert "starting" in starting.stdout.readline()
        starting.send_signal(signal.SIGINT)
        rest, _ = starting.communicate(timeout=90)
        assert starting.returncode == 0, rest
        assert "Traceback" not in rest
    finally:
        starting.kill()
        starting.wait()
