"""From a hospital to the cloud over 80 ms: an edge beside a plain C-STORE over the same line.

The edge's proxy, its NATS server and its spool are at the modality's side of Toxiproxy; the hub's NATS server, the
ingestion, S3, PostgreSQL and the event processor at the other. DCMTK's storescu sends to the edge, or straight over the
line to storescp and to Orthanc. The time ends when the last instance is stored and recorded in the cloud. Beside it is
what plain TCP gets through the same line. A C-STORE over the line waits for round trips and varies little, so it runs
in the first round only: the whole takes some seven minutes with the default options.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import psycopg
from ct_study import CtStudy, write_ct_study
from measure import Sample, Series, measured
from results import Table
from services import STORESCU
from toxiproxy import Toxiproxy, plain_tcp, toxiproxy

from imaging_services.local.configuration import StackConfiguration
from imaging_services.local.data_folder import DataFolder
from imaging_services.local.nats_server import LeafNodes, NatsServer
from imaging_services.local.ports import free_ports
from imaging_services.local.processes import start
from imaging_services.local.readiness import http_status
from support.audit import until
from support.edge import Edge
from support.orthanc import Orthanc
from support.stack import Stack, imaging_up
from support.storescp import storescp

RTT = 0.080
RATES = {"1 Gbit/s": 1e9, "100 Mbit/s": 1e8}
_RECORDED = (
    "SELECT count(*) FROM dicom_instance i JOIN dicom_series se ON se.id = i.series_id"
    " JOIN dicom_study st ON st.id = se.study_id WHERE st.study_instance_uid = %s"
)
_ROOT, _USER, _PASSWORD = "WAN", "edge", "the edges' password"


@dataclass(frozen=True)
class Places:
    """What is at the far end of the line, and the line."""

    stack: Stack
    leaf_nodes: int
    ingestion: int
    hub: int
    storescp: int
    orthanc: Orthanc
    line: Toxiproxy
    folder: Path


@contextmanager
def _running(folder: Path) -> Iterator[Places]:
    port, leaf_nodes = free_ports(2)
    hub = NatsServer(folder / "hub", port, leaf_nodes=LeafNodes(leaf_nodes, _USER, _PASSWORD))
    with ExitStack() as running:
        stack = running.enter_context(imaging_up(folder, "--revisioning-delay", "3600"))
        child = start(hub.program())
        running.callback(child.stop)
        yield Places(
            stack,
            leaf_nodes,
            running.enter_context(_ingestion(folder, hub.url)),
            child.pid,
            running.enter_context(storescp(folder / "inbox")),
            running.enter_context(Orthanc(folder / "orthanc")),
            running.enter_context(toxiproxy(folder / "toxiproxy.log")),
            folder,
        )


@contextmanager
def _ingestion(folder: Path, hub: str) -> Iterator[int]:
    """A second ingestion of the stack, which takes what edges keep."""
    data = DataFolder(folder / "data")
    programs = StackConfiguration(data, data.load(), None, ()).service_programs()
    (given,) = [program for program in programs if program.name == "dimse-ingestion"]
    dimse, health = free_ports(2)
    own = {
        "DIMSE_PORT": str(dimse),
        "HEALTH_PORT": str(health),
        "DIMSE_NATS_URL": hub,
        "DIMSE_NATS_SUBJECT_ROOT": _ROOT,
        "DIMSE_NATS_RECEIVE_DOMAIN": "*",
    }
    child = start(
        replace(
            given,
            environment={**given.environment, **own},
            log_file=folder / "ingestion.log",
            ready=lambda: http_status(health, "/readyz") == 200,
        )
    )
    try:
        yield child.pid
    finally:
        child.stop()


@contextmanager
def _edge(places: Places, name: str, rate: float) -> Iterator[Edge]:
    port = places.line.link(places.leaf_nodes, rtt=RTT, rate=rate)
    access = {"EDGE_HUB_USER": _USER, "EDGE_HUB_PASSWORD": _PASSWORD}
    edge = Edge(places.folder / name, port, _ROOT, name, **access)
    edge.start()
    try:
        until(lambda: edge.metric("hub_connected"), 60, "the edge reaches its hub")
        yield edge
    finally:
        edge.close()


def compare(folder: Path, instances: int, rounds: int) -> list[Table]:
    """A quarter of the instances and all of them, over both lines, ``rounds`` times each."""
    folder.mkdir(parents=True)
    tables: list[Table] = []
    with _running(folder) as places:
        for number, (line, rate) in enumerate(RATES.items()):
            with _edge(places, f"edge-{number}", rate) as edge:
                _through_edge(places, edge, write_ct_study(folder / f"warm-{number}", 8, 990 + number))
                for part, count in (("a quarter", max(instances // 4, 1)), ("all", instances)):
                    title = f"{count} instances over {RTT * 1000:.0f} ms and {line} until stored and recorded"
                    series, size = _sent(places, edge, count, rate, rounds)
                    tables.append(Table(f"wan, {line}, {part}", title, series, size))
    return tables


def _sent(places: Places, edge: Edge, count: int, rate: float, rounds: int) -> tuple[list[Series], int]:
    series: dict[str, Series] = {}
    size = 0
    for number in range(rounds):
        seed = time.time_ns() % 2**31
        study = write_ct_study(places.folder / f"study-{seed}", count, seed)
        size = study.size
        ways = [_ways(places, edge, study, rate), *([_peers(places, study, rate)] if number == 0 else [])]
        for name, sample in chain(*ways):
            series.setdefault(name, Series(name)).samples.append(sample)
    return list(series.values()), size


def _ways(places: Places, edge: Edge, study: CtStudy, rate: float) -> Iterator[tuple[str, Sample]]:
    accepted, recorded = _through_edge(places, edge, study)
    yield "ours, edge: recorded in the cloud", recorded
    yield "ours, edge: accepted", accepted
    yield "the same bytes by plain TCP", Sample(plain_tcp(places.line, study.size, rtt=RTT, rate=rate), 0.0)


def _peers(places: Places, study: CtStudy, rate: float) -> Iterator[tuple[str, Sample]]:
    targets = {
        "DCMTK storescp over the line": ("ANY", places.storescp, []),
        "Orthanc over the line": (places.orthanc.ae_title, places.orthanc.dicom_port, [places.orthanc.pid]),
    }
    for name, (title, port, pids) in targets.items():
        line = places.line.link(port, rtt=RTT, rate=rate)
        yield name, measured(partial(_store, title, line, study), pids)


def _through_edge(places: Places, edge: Edge, study: CtStudy) -> tuple[Sample, Sample]:
    accepted: list[float] = []
    here = [one.pid for name in ("nats-server", "imaging_services.cli") for one in edge.children(name)]
    pids = [*here, places.hub, places.ingestion, *places.stack.ready["pids"].values()]

    def run() -> None:
        begun = time.perf_counter()
        _store("CLOUD", edge.port, study)
        accepted.append(time.perf_counter() - begun)
        _until_recorded(places.stack, study)

    sample = measured(run, pids)
    return Sample(accepted[0], sample.cpu), sample


def _store(title: str, port: int, study: CtStudy) -> None:
    command = [STORESCU, "-aec", title, "127.0.0.1", str(port), "+sd", str(study.folder)]
    subprocess.run(command, check=True, env={**os.environ, "TCP_NODELAY": "1"})


def _until_recorded(stack: Stack, study: CtStudy) -> None:
    """Asked of the database, which costs next to nothing: a search would take what it measures from the services."""
    with psycopg.connect(stack.ready["postgres"], autocommit=True) as database:
        while database.execute(_RECORDED, [study.study_instance_uid]).fetchone() != (len(study.files),):
            time.sleep(0.01)
