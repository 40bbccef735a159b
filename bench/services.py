"""The whole product beside Orthanc: C-STORE, STOW-RS, WADO-RS of a study and of frames, QIDO-RS.

Orthanc keeps its files in a folder and its index in SQLite. Ours is measured on the S3 server of `imaging up`, and on
a folder too, which compares like with like; both flush every instance to disk before they say success. On another S3
server as well, when one is named. The rows of S3 read from it each time; what a read cache saves has a row of its own.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import httpx
from ct_study import CtStudy, write_ct_study
from folder_space import FolderSpace, cached_space, folder_space, s3_space
from lean_client import LeanClient
from measure import Sample, Series, measured
from results import Table
from s3_server import chosen

from support.orthanc import Orthanc
from support.stack import Stack, imaging_up

STORESCU = "/usr/bin/storescu"
BATCH = 20
SEARCHES = 200
ASSOCIATIONS = 8


@dataclass(frozen=True)
class Candidates:
    """What is compared."""

    stack: Stack
    folder: FolderSpace
    cached: FolderSpace
    orthanc: Orthanc
    other: FolderSpace | None

    def web(self) -> dict[str, tuple[str, list[int]]]:
        """DICOMweb base URL and server processes, by name."""
        found = {
            "ours, S3": (self.stack.url("dicomweb"), self.pids),
            "ours, folder": (self.folder.dicomweb, self.folder.pids),
        }
        if self.other is not None:
            found[f"ours, {self.other.name}"] = self.other.dicomweb, self.other.pids
        return {**found, "Orthanc": (self.orthanc.dicomweb, [self.orthanc.pid])}

    @property
    def pids(self) -> list[int]:
        """Every process of the stack."""
        return list(self.stack.ready["pids"].values())


@dataclass(frozen=True)
class Studies:
    """Of one round: ``one`` for a sender each, ``many`` for several senders at a time."""

    one: list[CtStudy]
    many: list[list[CtStudy]]


@contextmanager
def _running(folder: Path, s3: str | None, s3_endpoint: str | None) -> Iterator[Candidates]:
    with (
        imaging_up(folder, "--revisioning-delay", "3600", environment={"SPACE_CACHE_DIRECTORY": ""}) as stack,
        folder_space(stack, folder / "space") as space,
        cached_space(stack, folder / "cached") as cached,
        chosen(folder / "other-s3", s3, s3_endpoint) as bucket,
        s3_space(stack, folder / "other", bucket) if bucket else nullcontext() as other,
        Orthanc(folder / "orthanc") as orthanc,
    ):
        yield Candidates(stack, space, cached, orthanc, other)


def compare(
    folder: Path, instances: int, rounds: int, s3: str | None = None, s3_endpoint: str | None = None
) -> list[Table]:
    """Run every comparison ``rounds`` times, the candidates in turn, each on studies that it has not seen."""
    folder.mkdir(parents=True)
    cases = {
        _store: ("c-store", f"C-STORE of {instances} instances until stored and recorded"),
        _store_many: (
            f"c-store, {ASSOCIATIONS} associations",
            f"C-STORE of {instances} instances by {ASSOCIATIONS} associations at a time",
        ),
        _stow: ("stow-rs", f"STOW-RS of {instances} instances in batches of {BATCH}"),
        _wado: ("wado-rs study", f"WADO-RS of a study of {instances} instances"),
        _frames: ("wado-rs frames", f"WADO-RS of {instances} frames, one request each, not to be compressed"),
        _frames_for_browsers: (
            "wado-rs frames, browser",
            f"WADO-RS of {instances} frames, one request each, with a browser's Accept-Encoding",
        ),
        _qido: ("qido-rs", f"{SEARCHES} QIDO-RS searches for a study by patient id"),
    }
    results: dict[str, dict[str, Series]] = {case: {} for case, _ in cases.values()}
    sizes: dict[str, int] = {}
    with _running(folder, s3, s3_endpoint) as candidates:
        for number in range(rounds + 1):  # the first round warms up and is not counted
            place = folder / str(number)
            studies = Studies(
                [write_ct_study(place / f"{i}", instances, 100 * number + i) for i in range(7)],
                [
                    [
                        write_ct_study(place / f"{i}-{j}", max(1, instances // ASSOCIATIONS), 100 * number + 10 * i + j)
                        for j in range(ASSOCIATIONS)
                    ]
                    for i in range(1, 5)
                ],
            )
            for run, (case, _) in cases.items():
                sizes[case] = 0 if run is _qido else studies.one[0].size
                for name, sample in run(candidates, studies).items():
                    series = results[case].setdefault(name, Series(name))
                    if number:
                        series.samples.append(sample)
            shutil.rmtree(place)
    return [Table(case, title, list(results[case].values()), sizes[case]) for case, title in cases.values()]


def _store(candidates: Candidates, studies: Studies) -> dict[str, Sample]:
    return _stored(candidates, [[study] for study in [*studies.one[:3], studies.one[5]]])


def _store_many(candidates: Candidates, studies: Studies) -> dict[str, Sample]:
    return _stored(candidates, studies.many)


def _stored(candidates: Candidates, sets: list[list[CtStudy]]) -> dict[str, Sample]:
    """The studies of a set at a time, each by an association of its own; Orthanc gets the first set, as our S3 does."""
    ready, peer = candidates.stack.ready, candidates.orthanc
    address = {"ae_title": peer.ae_title, "host": "127.0.0.1", "port": peer.dicom_port}
    space = candidates.folder
    accepted: list[float] = []

    def through_proxy() -> None:
        start = time.perf_counter()
        _storescu(ready["dimse_proxy"], sets[2])
        accepted.append(time.perf_counter() - start)
        _until_recorded(candidates.stack, sets[2])

    samples = {
        "ours, S3, direct": measured(lambda: _storescu(ready["dimse_ingestion"], sets[0]), candidates.pids),
        "ours, folder, direct": measured(lambda: _storescu(space.dimse, sets[1]), space.pids),
        "ours, S3, by proxy: recorded": measured(through_proxy, candidates.pids),
        "Orthanc": measured(lambda: _storescu(address, sets[0]), [peer.pid]),
    }
    other = candidates.other
    if other is not None:
        samples[f"ours, {other.name}, direct"] = measured(lambda: _storescu(other.dimse, sets[3]), other.pids)
    samples["ours, S3, by proxy: accepted"] = Sample(accepted[0], samples["ours, S3, by proxy: recorded"].cpu)
    return samples


def _storescu(address: dict[str, object], studies: list[CtStudy]) -> None:
    command = [STORESCU, "-aec", str(address["ae_title"]), str(address["host"]), str(address["port"]), "+sd"]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    senders = [subprocess.Popen([*command, str(study.folder)], env=environment) for study in studies]
    codes = [sender.wait() for sender in senders]
    if any(codes):
        raise RuntimeError(f"storescu ended with {codes}")


def _until_recorded(stack: Stack, studies: list[CtStudy]) -> None:
    with httpx.Client() as client:
        url = f"{stack.url('dicomweb')}/studies"
        for study in studies:
            parameters = {"StudyInstanceUID": study.study_instance_uid}
            while True:
                matches = client.get(url, params=parameters).json()
                if matches and matches[0]["00201208"]["Value"] == [len(study.files)]:
                    break
                time.sleep(0.005)


def _each(candidates: Candidates, run: Callable[[str, str], None]) -> dict[str, Sample]:
    return {
        name: measured(lambda base=base, name=name: run(base, name), pids)  # type: ignore[misc]
        for name, (base, pids) in candidates.web().items()
    }


def _each_reading(candidates: Candidates, run: Callable[[str, str], None]) -> dict[str, Sample]:
    """And the study on S3 once more by a service with a read cache that has just sent it to somebody else."""
    cached, name = candidates.cached, "ours, S3"
    run(cached.dicomweb, name)
    return {
        **_each(candidates, run),
        f"ours, {cached.name}": measured(lambda: run(cached.dicomweb, name), cached.pids),
    }


def _of(name: str, studies: Studies) -> CtStudy:
    """A series belongs to one storage space, so each space gets a study of its own."""
    return studies.one[{"ours, S3": 3, "Orthanc": 3, "ours, folder": 4}.get(name, 6)]


def _stow(candidates: Candidates, studies: Studies) -> dict[str, Sample]:
    headers = {
        "Content-Type": 'multipart/related; type="application/dicom"; boundary=bench',
        "Accept": "application/dicom+json",
    }
    bodies = {
        name: [_multipart(study.files[i : i + BATCH]) for i in range(0, len(study.files), BATCH)]
        for name in candidates.web()
        for study in [_of(name, studies)]
    }

    def run(base: str, name: str) -> None:
        with LeanClient(base, headers) as client:
            for body in bodies[name]:
                client.post("/studies", body)

    return _each(candidates, run)


def _multipart(files: tuple[Path, ...]) -> bytes:
    head = b"--bench\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + file.read_bytes() + b"\r\n" for file in files) + b"--bench--\r\n"


def _wado(candidates: Candidates, studies: Studies) -> dict[str, Sample]:
    headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}

    def run(base: str, name: str) -> None:
        study = _of(name, studies)
        with LeanClient(base, headers) as client:
            received = client.received(f"/studies/{study.study_instance_uid}")
        if received < study.size * 0.99:
            raise RuntimeError(f"{base} sent {received} bytes of {study.size}")

    return _each_reading(candidates, run)


def _frames(candidates: Candidates, studies: Studies) -> dict[str, Sample]:
    """What a viewer asks for, over one connection."""
    return _frames_as(candidates, studies, "identity", 512 * 512 * 2)


def _frames_for_browsers(candidates: Candidates, studies: Studies) -> dict[str, Sample]:
    """The same from a viewer in a browser, which cannot but offer these: a server may spend its time on compressing."""
    return _frames_as(candidates, studies, "gzip, deflate, br", 512 * 512 // 2)


def _frames_as(candidates: Candidates, studies: Studies, encodings: str, least: int) -> dict[str, Sample]:
    headers = {
        "Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*',
        "Accept-Encoding": encodings,
    }

    def run(base: str, name: str) -> None:
        study = _of(name, studies)
        series = f"/studies/{study.study_instance_uid}/series/{study.series_instance_uid}"
        with LeanClient(base, headers) as client:
            for instance in study.sop_instance_uids:
                received = client.received(f"{series}/instances/{instance}/frames/1")
                if received < least:
                    raise RuntimeError(f"{base} sent {received} bytes of a frame")

    return _each_reading(candidates, run)


def _qido(candidates: Candidates, studies: Studies) -> dict[str, Sample]:
    def run(base: str, name: str) -> None:
        parameters, headers = {"PatientID": _of(name, studies).patient_id}, {"Accept": "application/dicom+json"}
        with LeanClient(base, headers) as client:
            for _ in range(SEARCHES):
                if not json.loads(client.get("/studies", parameters)):
                    raise RuntimeError(f"{base} does not find the study")

    return _each(candidates, run)
