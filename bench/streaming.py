"""Opening a CT study over a link of 40 ms and 100 Mbit/s: header and frame streaming beside C-MOVE and WADO-RS.

Three times are measured from the moment at which somebody asks for the study: until the first image can be shown,
until whichever image is asked for can be shown, until all are there. Whoever gets the study as one stream of instances
has any image only when the last one has come; who has the headers, one request later.
"""

import asyncio
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from ct_study import CtStudy, write_ct_study
from measure import Sample, Series, cpu_seconds
from results import Table
from services import STORESCU
from slow_link import slow_link

from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.domain.streaming.client import StreamingAddress, StreamingClient
from imaging_services.domain.streaming.frame_loader import FrameLoader
from imaging_services.local.ports import free_ports
from support.orthanc import Orthanc
from support.stack import Stack, imaging_up
from support.storescp import storescp

MOVESCU = "/usr/bin/movescu"
RTT, RATE = 0.040, 100e6 / 8
CONNECTIONS = 4
ASKED_FOR = 20
DESTINATION = "VIEWER"
_PARTITION = "local"
_PATIENCE = 300


@dataclass(frozen=True)
class Opened:
    """Seconds until the first image, until any image, until all images can be shown."""

    first: float
    any: float
    whole: float


@dataclass(frozen=True)
class Studies:
    """Two of a kind: one is looked at here and there, the other is fetched to the end."""

    looked_at: CtStudy
    fetched: CtStudy


@dataclass(frozen=True)
class Candidates:
    """What is compared, each behind the link; ``folder`` is where C-MOVE delivers."""

    stack: Stack
    orthanc: Orthanc
    ours_port: int
    web_port: int
    dicom_port: int
    folder: Path


@contextmanager
def _running(folder: Path) -> Iterator[Candidates]:
    (relay_port,) = free_ports(1)  # Orthanc has to know it before the link is there
    inbox = folder / "inbox"
    modalities = {DESTINATION: (DESTINATION, "127.0.0.1", relay_port)}
    with (
        imaging_up(folder, "--revisioning-delay", "3600") as stack,
        storescp(inbox, ae_title=DESTINATION) as viewer,
        slow_link(viewer, rtt=RTT, rate=RATE, listen=relay_port),
        Orthanc(folder / "orthanc", modalities=modalities) as orthanc,
        slow_link(int(stack.url("dicomweb").split(":")[2].split("/")[0]), rtt=RTT, rate=RATE) as ours,
        slow_link(orthanc.http_port, rtt=RTT, rate=RATE) as web,
        slow_link(orthanc.dicom_port, rtt=RTT, rate=RATE) as dicom,
    ):
        yield Candidates(stack, orthanc, ours, web, dicom, inbox)


def compare(folder: Path, instances: int, rounds: int) -> list[Table]:
    """Open a new study with each candidate in turn, ``rounds`` times."""
    folder.mkdir(parents=True)
    titles = {
        "first": f"a study of {instances} instances over 40 ms and 100 Mbit/s: until the first image can be shown",
        "any": "until any image that is asked for can be shown",
        "whole": "until all images are there",
    }
    results: dict[str, dict[str, Series]] = {title: {} for title in titles.values()}
    with _running(folder) as candidates:
        _warm_up(candidates, folder / "warm")
        for number in range(rounds):
            studies = Studies(*(write_ct_study(folder / f"{number}-{i}", instances, 700 + number) for i in range(2)))
            _store(candidates, studies)
            for name, run, pids in _ways(candidates):
                before = cpu_seconds(pids)
                opened = run(candidates, studies)
                cpu = cpu_seconds(pids) - before
                for field, title in titles.items():
                    samples = results[title].setdefault(name, Series(name)).samples
                    samples.append(Sample(getattr(opened, field), cpu))
    return [Table(f"opening a study: {field}", title, list(results[title].values())) for field, title in titles.items()]


def _warm_up(candidates: Candidates, folder: Path) -> None:
    """Every server has served a study before it is measured."""
    studies = Studies(*(write_ct_study(folder / str(i), 8, 690 + i) for i in range(2)))
    _store(candidates, studies)
    for _, run, _ in _ways(candidates):
        run(candidates, studies)


def _ways(candidates: Candidates) -> list[tuple[str, Callable[[Candidates, Studies], Opened], list[int]]]:
    ours, peer = list(candidates.stack.ready["pids"].values()), [candidates.orthanc.pid]
    return [
        ("ours, streaming, first time", _streamed, ours),
        ("ours, streaming, headers kept", _streamed, ours),
        ("Orthanc, C-MOVE", _moved, peer),
        ("Orthanc, WADO-RS study", _retrieved, peer),
        ("Orthanc, WADO-RS metadata, frames", _by_metadata, peer),
    ]


def _store(candidates: Candidates, studies: Studies) -> None:
    ours = candidates.stack.ready["dimse_ingestion"]
    peer = {"ae_title": candidates.orthanc.ae_title, "host": "127.0.0.1", "port": candidates.orthanc.dicom_port}
    for address in (ours, peer):
        command = [STORESCU, "-aec", str(address["ae_title"]), str(address["host"]), str(address["port"])]
        folders = [str(studies.looked_at.folder), str(studies.fetched.folder)]
        subprocess.run([*command, "+sd", *folders], check=True, env={**os.environ, "TCP_NODELAY": "1"})


def _streamed(candidates: Candidates, studies: Studies) -> Opened:
    first, worst = asyncio.run(_look(candidates.ours_port, studies.looked_at))
    return Opened(first, worst, asyncio.run(_fetch(candidates.ours_port, studies.fetched)))


@asynccontextmanager
async def _client(port: int) -> AsyncIterator[StreamingClient]:
    address = StreamingAddress.of(f"http://127.0.0.1:{port}/wado/{_PARTITION}")
    async with HttpTarget(address.images, HttpOptions(max_connections=CONNECTIONS + 1)) as http:
        yield StreamingClient(http, address)


async def _look(port: int, study: CtStudy) -> tuple[float, float]:
    async with _client(port) as client:
        start = time.perf_counter()
        opened = await client.open_study(study.study_instance_uid)
        headers = time.perf_counter() - start
        async with FrameLoader(client, opened, connections=CONNECTIONS) as frames:
            await frames.get(0)
            first = time.perf_counter() - start
            return first, headers + await _worst(range(1, len(frames.positions)), frames.get)


async def _fetch(port: int, study: CtStudy) -> float:
    async with _client(port) as client:
        start = time.perf_counter()
        opened = await client.open_study(study.study_instance_uid)
        async with FrameLoader(client, opened, connections=CONNECTIONS) as frames:
            for position in range(len(frames.positions)):
                await frames.get(position)
        return time.perf_counter() - start


async def _worst(positions: range, get: Callable[[int], Awaitable[object]]) -> float:
    """The longest wait for one of some positions that nobody could foresee, after the headers were there."""
    waits = []
    for position in random.Random(5).sample(positions, min(ASKED_FOR, len(positions))):
        start = time.perf_counter()
        await get(position)
        waits.append(time.perf_counter() - start)
    return max(waits)


def _moved(candidates: Candidates, studies: Studies) -> Opened:
    study = studies.fetched
    for old in candidates.folder.iterdir():
        old.unlink()
    size = study.files[0].stat().st_size * 0.98  # the files differ in their meta headers
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.study_instance_uid}"]
    command = [MOVESCU, "-S", "-aet", DESTINATION, "-aem", DESTINATION, "-aec", candidates.orthanc.ae_title, *keys]
    start = time.perf_counter()
    mover = subprocess.Popen(
        [*command, "127.0.0.1", str(candidates.dicom_port)], env={**os.environ, "TCP_NODELAY": "1"}
    )
    try:
        first = _until_there(candidates.folder, 1, size, start)
        whole = _until_there(candidates.folder, len(study.files), size, start)
    finally:
        mover.wait(60)
    return Opened(first, whole, whole)


def _until_there(folder: Path, count: int, size: float, start: float) -> float:
    while sum(entry.stat().st_size >= size for entry in os.scandir(folder)) < count:
        if time.perf_counter() - start > _PATIENCE:
            raise RuntimeError(f"C-MOVE delivered fewer than {count} instances")
        time.sleep(0.005)
    return time.perf_counter() - start


def _retrieved(candidates: Candidates, studies: Studies) -> Opened:
    study = studies.fetched
    url = f"http://127.0.0.1:{candidates.web_port}/dicom-web/studies/{study.study_instance_uid}"
    headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    received, first, one = 0, 0.0, study.files[0].stat().st_size
    start = time.perf_counter()
    with httpx.Client(timeout=_PATIENCE) as client, client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        for block in response.iter_raw():
            received += len(block)
            if not first and received >= one:
                first = time.perf_counter() - start
    whole = time.perf_counter() - start
    if received < study.size * 0.99:
        raise RuntimeError(f"Orthanc sent {received} bytes of {study.size}")
    return Opened(first, whole, whole)


def _by_metadata(candidates: Candidates, studies: Studies) -> Opened:
    """What a web viewer does: the study's metadata, then frames; over as many connections as ours."""
    first, worst = asyncio.run(_look_by_metadata(candidates.web_port, studies.looked_at))
    return Opened(first, worst, asyncio.run(_fetch_by_metadata(candidates.web_port, studies.fetched)))


class _WebViewer:
    """A study at Orthanc, opened by its metadata."""

    def __init__(self, client: httpx.AsyncClient, port: int, study: CtStudy) -> None:
        self._client = client
        self._base = f"http://127.0.0.1:{port}/dicom-web/studies/{study.study_instance_uid}"
        self.places: list[tuple[str, str]] = []

    async def open(self) -> None:
        answer = await self._client.get(f"{self._base}/metadata", headers={"Accept": "application/dicom+json"})
        documents = sorted(answer.raise_for_status().json(), key=lambda one: one["00200013"]["Value"][0])
        self.places = [(one["0020000E"]["Value"][0], one["00080018"]["Value"][0]) for one in documents]

    async def get(self, position: int) -> None:
        series, instance = self.places[position]
        accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
        url = f"{self._base}/series/{series}/instances/{instance}/frames/1"
        try:
            answer = await self._client.get(url, headers={"Accept": accept})
        except httpx.RemoteProtocolError:  # Orthanc closes an idle connection just when it is used again
            answer = await self._client.get(url, headers={"Accept": accept})
        answer.raise_for_status()


def _web_client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    return httpx.AsyncClient(timeout=_PATIENCE, limits=limits)


async def _look_by_metadata(port: int, study: CtStudy) -> tuple[float, float]:
    async with _web_client() as client:
        viewer, start = _WebViewer(client, port, study), time.perf_counter()
        await viewer.open()
        headers = time.perf_counter() - start
        await viewer.get(0)
        first = time.perf_counter() - start
        return first, headers + await _worst(range(1, len(viewer.places)), viewer.get)


async def _fetch_by_metadata(port: int, study: CtStudy) -> float:
    async with _web_client() as client:
        viewer, start = _WebViewer(client, port, study), time.perf_counter()
        await viewer.open()
        rest = iter(range(len(viewer.places)))

        async def work() -> None:
            for position in rest:
                await viewer.get(position)

        await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
        return time.perf_counter() - start
