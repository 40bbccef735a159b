"""C-STORE reception with a null sink: our upper layer against DCMTK ``storescp --ignore`` and pynetdicom's AE.

DCMTK's storescu (TCP_NODELAY=1) sends the same instances to each server in turn. ``DCMTK, 128 KiB PDUs`` is storescp
with the longest PDUs it can have, as we announce; ``DCMTK`` has its default of 16 KiB.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ct_study import write_ct_study
from measure import Series, measured
from results import Table

from imaging_services.local.ports import free_ports

HERE = Path(__file__).parent
SERVERS = {
    "ours": "ours",
    "DCMTK storescp --ignore": "dcmtk",
    "DCMTK, 128 KiB PDUs": "dcmtk-128k",
    "pynetdicom": "pynetdicom",
}
NO_DELAY = {**os.environ, "TCP_NODELAY": "1"}


def compare(folder: Path, instances: int, rounds: int) -> list[Table]:
    """Alternate the servers for ``rounds`` rounds."""
    study = write_ct_study(folder, instances, seed=1)
    series = [Series(title) for title in SERVERS]
    for number in range(rounds + 1):  # the first round warms up and is not counted
        for one in series:
            with server(SERVERS[one.name]) as (port, pid):
                sample = measured(lambda port=port: send(port, study.folder), [pid])
            if number:
                one.samples.append(sample)
    title = f"C-STORE reception of {instances} instances into a null sink"
    return [Table("reception", title, series, study.size)]


def send(port: int, folder: Path) -> None:
    """One association that sends every file of the folder."""
    subprocess.run(["/usr/bin/storescu", "127.0.0.1", str(port), "+sd", str(folder)], env=NO_DELAY, check=True)


@contextmanager
def server(name: str) -> Iterator[tuple[int, int]]:
    """Start one of the servers; its port and process id."""
    if name.startswith("dcmtk"):
        longest = ["--max-pdu", "131072"] if name == "dcmtk-128k" else []
        (port,) = free_ports(1)
        process = subprocess.Popen(["/usr/bin/storescp", "--ignore", *longest, str(port)], env=NO_DELAY)
    else:
        command = [sys.executable, str(HERE / "_reception_servers.py"), name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        port = int(process.stdout.readline())
    try:
        wait_for(port)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int) -> None:
    """Until echoscu succeeds."""
    for _ in range(100):
        done = subprocess.run(["/usr/bin/echoscu", "127.0.0.1", str(port)], env=NO_DELAY, capture_output=True)
        if done.returncode == 0:
            return
        time.sleep(0.05)
    raise SystemExit(f"no DICOM server on port {port}")
