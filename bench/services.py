"""The whole product beside Orthanc: C-STORE, STOW-RS, WADO-RS of a study, QIDO-RS.

Orthanc keeps its files in a folder and its index in SQLite. Ours is measured on the S3 server of `imaging up`, and on
a folder too, which compares like with like; both flush every instance to disk before they say success.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from ct_study import CtStudy, write_ct_study
from folder_space import FolderSpace, folder_space
from measure import Sample, Series, measured

from support.orthanc import Orthanc
from support.stack import Stack, imaging_up

STORESCU = "/usr/bin/storescu"
BATCH = 20
SEARCHES = 200


@dataclass(frozen=True)
class Candidates:
    """What is compared."""

    stack: Stack
    folder: FolderSpace
    orthanc: Orthanc

    def web(self) -> dict[str, tuple[str, list[int]]]:
        """DICOMweb base URL and server processes, by name."""
        return {
            "ours, S3": (self.stack.url("dicomweb"), self.pids),
            "ours, folder": (self.folder.dicomweb, self.folder.pids),
            "Orthanc": (self.orthanc.dicomweb, [self.orthanc.pid]),
        }

    @property
    def pids(self) -> list[int]:
        """Every process of the stack."""
        return list(self.stack.ready["pids"].values())


@contextmanager
def _running(folder: Path) -> Iterator[Candidates]:
    with (
        imaging_up(folder, "--revisioning-delay", "3600") as stack,
        folder_space(stack, folder / "space") as space,
        Orthanc(folder / "orthanc") as orthanc,
    ):
        yield Candidates(stack, space, orthanc)


def compare(folder: Path, instances: int, rounds: int) -> list[tuple[str, list[Series]]]:
    """Run every comparison ``rounds`` times, the candidates in turn, each on studies that it has not seen."""
    folder.mkdir(parents=True)
    titles = {
        _store: f"C-STORE of {instances} instances until stored and recorded",
        _stow: f"STOW-RS of {instances} instances in batches of {BATCH}",
        _wado: f"WADO-RS of a study of {instances} instances",
        _qido: f"{SEARCHES} QIDO-RS searches for a study by patient id",
    }
    results: dict[str, dict[str, Series]] = {title: {} for title in titles.values()}
    with _running(folder) as candidates:
        for number in range(rounds + 1):  # the first round warms up and is not counted
            studies = [write_ct_study(folder / f"{number}-{i}", instances, 10 * number + i) for i in range(5)]
            for run, title in titles.items():
                for name, sample in run(candidates, studies).items():
                    series = results[title].setdefault(name, Series(name))
                    if number:
                        series.samples.append(sample)
    return [(title, list(series.values())) for title, series in results.items()]


def _store(candidates: Candidates, studies: list[CtStudy]) -> dict[str, Sample]:
    ready, peer = candidates.stack.ready, candidates.orthanc
    address = {"ae_title": peer.ae_title, "host": "127.0.0.1", "port": peer.dicom_port}
    space = candidates.folder
    accepted: list[float] = []

    def through_proxy() -> None:
        start = time.perf_counter()
        _storescu(ready["dimse_proxy"], studies[2])
        accepted.append(time.perf_counter() - start)
        _until_recorded(candidates.stack, studies[2])

    samples = {
        "ours, S3, direct": measured(lambda: _storescu(ready["dimse_ingestion"], studies[0]), candidates.pids),
        "ours, folder, direct": measured(lambda: _storescu(space.dimse, studies[1]), space.pids),
        "ours, S3, by proxy: recorded": measured(through_proxy, candidates.pids),
        "Orthanc": measured(lambda: _storescu(address, studies[0]), [peer.pid]),
    }
    samples["ours, S3, by proxy: accepted"] = Sample(accepted[0], samples["ours, S3, by proxy: recorded"].cpu)
    return samples


def _storescu(address: dict[str, object], study: CtStudy) -> None:
    command = [STORESCU, "-aec", str(address["ae_title"]), str(address["host"]), str(address["port"])]
    subprocess.run([*command, "+sd", str(study.folder)], check=True, env={**os.environ, "TCP_NODELAY": "1"})


def _until_recorded(stack: Stack, study: CtStudy) -> None:
    with httpx.Client() as client:
        url, parameters = f"{stack.url('dicomweb')}/studies", {"StudyInstanceUID": study.study_instance_uid}
        while True:
            matches = client.get(url, params=parameters).json()
            if matches and matches[0]["00201208"]["Value"] == [len(study.files)]:
                return
            time.sleep(0.005)


def _each(candidates: Candidates, run: Callable[[str, str], None]) -> dict[str, Sample]:
    return {
        name: measured(lambda base=base, name=name: run(base, name), pids)  # type: ignore[misc]
        for name, (base, pids) in candidates.web().items()
    }


def _of(name: str, studies: list[CtStudy]) -> CtStudy:
    """A series belongs to one storage space, so the folder gets a study of its own."""
    return studies[4] if "folder" in name else studies[3]


def _stow(candidates: Candidates, studies: list[CtStudy]) -> dict[str, Sample]:
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
        with httpx.Client(timeout=120) as client:
            for body in bodies[name]:
                client.post(f"{base}/studies", content=body, headers=headers).raise_for_status()

    return _each(candidates, run)


def _multipart(files: tuple[Path, ...]) -> bytes:
    head = b"--bench\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + file.read_bytes() + b"\r\n" for file in files) + b"--bench--\r\n"


def _wado(candidates: Candidates, studies: list[CtStudy]) -> dict[str, Sample]:
    headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}

    def run(base: str, name: str) -> None:
        study, received = _of(name, studies), 0
        with (
            httpx.Client(timeout=120) as client,
            client.stream("GET", f"{base}/studies/{study.study_instance_uid}", headers=headers) as response,
        ):
            response.raise_for_status()
            for block in response.iter_raw():
                received += len(block)
        if received < study.size * 0.99:
            raise RuntimeError(f"{base} sent {received} bytes of {study.size}")

    return _each(candidates, run)


def _qido(candidates: Candidates, studies: list[CtStudy]) -> dict[str, Sample]:
    def run(base: str, name: str) -> None:
        parameters, headers = {"PatientID": _of(name, studies).patient_id}, {"Accept": "application/dicom+json"}
        with httpx.Client(timeout=120) as client:
            for _ in range(SEARCHES):
                if not client.get(f"{base}/studies", params=parameters, headers=headers).json():
                    raise RuntimeError(f"{base} does not find the study")

    return _each(candidates, run)
