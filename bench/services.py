"""The whole product beside Orthanc: C-STORE, STOW-RS, WADO-RS of a study and of frames, QIDO-RS.

Orthanc keeps its files in a folder and its index in SQLite. Ours is measured on the S3 server of `imaging up`, and on
a folder too, which compares like with like; both flush every instance to disk before they say success.
"""

import os
import shutil
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
from results import Table

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


@dataclass(frozen=True)
class Studies:
    """Of one round: ``one`` for a sender each, ``many`` for several senders at a time."""

    one: list[CtStudy]
    many: list[list[CtStudy]]


@contextmanager
def _running(folder: Path) -> Iterator[Candidates]:
    with (
        imaging_up(folder, "--revisioning-delay", "3600") as stack,
        folder_space(stack, folder / "space") as space,
        Orthanc(folder / "orthanc") as orthanc,
    ):
        yield Candidates(stack, space, orthanc)


def compare(folder: Path, instances: int, rounds: int) -> list[Table]:
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
        _frames: ("wado-rs frames", f"WADO-RS of {instances} frames, one request each"),
        _qido: ("qido-rs", f"{SEARCHES} QIDO-RS searches for a study by patient id"),
    }
    results: dict[str, dict[str, Series]] = {case: {} for case, _ in cases.values()}
    sizes: dict[str, int] = {}
    with _running(folder) as candidates:
        for number in range(rounds + 1):  # the first round warms up and is not counted
            place = folder / str(number)
            studies = Studies(
                [write_ct_study(place / f"{i}", instances, 100 * number + i) for i in range(5)],
                [
                    [
                        write_ct_study(place / f"{i}-{j}", max(1, instances // ASSOCIATIONS), 100 * number + 10 * i + j)
                        for j in range(ASSOCIATIONS)
                    ]
                    for i in range(1, 4)
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
    return _stored(candidates, [[study] for study in studies.one[:3]])


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


def _of(name: str, studies: Studies) -> CtStudy:
    """A series belongs to one storage space, so the folder gets a study of its own."""
    return studies.one[4] if "folder" in name else studies.one[3]


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
        with httpx.Client(timeout=120) as client:
            for body in bodies[name]:
                client.post(f"{base}/studies", content=body, headers=headers).raise_for_status()

    return _each(candidates, run)


def _multipart(files: tuple[Path, ...]) -> bytes:
    head = b"--bench\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + file.read_bytes() + b"\r\n" for file in files) + b"--bench--\r\n"


def _wado(candidates: Candidates, studies: Studies) -> dict[str, Sample]:
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


def _frames(candidates: Candidates, studies: Studies) -> dict[str, Sample]:
    """What a viewer asks for, over one connection."""
    headers = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}

    def run(base: str, name: str) -> None:
        study = _of(name, studies)
        series = f"{base}/studies/{study.study_instance_uid}/series/{study.series_instance_uid}"
        with httpx.Client(timeout=120, headers=headers) as client:
            for instance in study.sop_instance_uids:
                answer = client.get(f"{series}/instances/{instance}/frames/1").raise_for_status()
                if len(answer.content) < 512 * 512 * 2:
                    raise RuntimeError(f"{base} sent {len(answer.content)} bytes of a frame")

    return _each(candidates, run)


def _qido(candidates: Candidates, studies: Studies) -> dict[str, Sample]:
    def run(base: str, name: str) -> None:
        parameters, headers = {"PatientID": _of(name, studies).patient_id}, {"Accept": "application/dicom+json"}
        with httpx.Client(timeout=120) as client:
            for _ in range(SEARCHES):
                if not client.get(f"{base}/studies", params=parameters, headers=headers).json():
                    raise RuntimeError(f"{base} does not find the study")

    return _each(candidates, run)
