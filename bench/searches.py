"""QIDO-RS in a large manifest: ours with synthetic rows, and Orthanc with tiny instances that it is sent.

A study search has to cost what its answer costs, not what the manifest holds. Orthanc is filled by uploading instances
of one kilobyte, some hundreds a second: by default it holds far less than ours, which is said in the table; with
``--peer-studies 10000`` it holds the same.
"""

import asyncio
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
from measure import Sample, Series, cpu_seconds
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from results import Table
from synthetic import INSTANCES, fill

from support.orthanc import Orthanc
from support.stack import imaging_up

SEARCHES = 300
PROVIDER = "local"
"""The storage space of `imaging up`."""
_KEYS: dict[str, Callable[[int], dict[str, str]]] = {
    "patient id": lambda n: {"PatientID": f"P{n // 2}"},
    "accession number": lambda n: {"AccessionNumber": f"A{n}"},
    "study": lambda n: {"StudyInstanceUID": f"1.2.826.{n}"},
    "a day": lambda n: {"StudyDate": _day(n), "limit": "20"},
}


def compare(folder: Path, studies: int, peer_studies: int) -> list[Table]:
    """A table for each key: p50 and p99 of a search, as candidates of their own."""
    folder.mkdir(parents=True)
    with ExitStack() as running:
        stack = running.enter_context(imaging_up(folder, "--revisioning-delay", "3600"))
        orthanc = running.enter_context(Orthanc(folder / "orthanc"))
        asyncio.run(_filled(str(stack.ready["postgres"]), studies))
        _upload(orthanc, peer_studies)
        pids = list(stack.ready["pids"].values())
        tables = []
        for key, parameters in _KEYS.items():
            ours = _timed(stack.url("dicomweb"), parameters, studies, pids)
            peer = _timed(orthanc.dicomweb, parameters, peer_studies, [orthanc.pid])
            sizes = f"ours {studies * INSTANCES:,} instances, Orthanc {peer_studies * INSTANCES:,}"
            for case, at in (("p50", 0.5), ("p99", 0.99)):
                series = [
                    Series("ours", [Sample(_quantile(ours[0], at), ours[1])]),
                    Series("Orthanc", [Sample(_quantile(peer[0], at), peer[1])]),
                ]
                tables.append(Table(f"qido-rs by {key}, {case}", f"QIDO-RS by {key}, {case}; {sizes}", series))
        return tables


async def _filled(address: str, studies: int) -> None:
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        await fill(connection, PROVIDER, 0, studies)


def _timed(
    base: str, parameters: Callable[[int], dict[str, str]], studies: int, pids: list[int]
) -> tuple[list[float], float]:
    """Seconds of each search, sorted, and CPU seconds of all; every search finds something."""
    headers = {"Accept": "application/dicom+json"}
    seconds = []
    with httpx.Client(timeout=120, headers=headers) as client:
        for warming in (True, False):
            before = cpu_seconds(pids)
            for turn in range(20 if warming else SEARCHES):
                wanted = parameters(turn * 7919 % studies)
                start = time.perf_counter()
                found = client.get(f"{base}/studies", params=wanted).json()
                if not found:
                    raise RuntimeError(f"{base} finds nothing by {wanted}")
                if not warming:
                    seconds.append(time.perf_counter() - start)
    return sorted(seconds), cpu_seconds(pids) - before


def _quantile(values: list[float], at: float) -> float:
    return values[min(int(len(values) * at), len(values) - 1)]


def _day(number: int) -> str:
    return time.strftime("%Y%m%d", time.gmtime(1420070400 + number % 3650 * 86400))


def _upload(orthanc: Orthanc, studies: int) -> None:
    """The same studies as ``synthetic`` makes, by four connections."""
    limits = httpx.Limits(max_connections=4)
    with httpx.Client(timeout=120, limits=limits) as client, ThreadPoolExecutor(4) as pool:

        def send(number: int) -> None:
            study = _study(number)
            for series in range(1, 3):
                for instance in range(1, INSTANCES // 2 + 1):
                    body = _instance(study, series, instance)
                    client.post(f"{orthanc.http}/instances", content=body).raise_for_status()

        list(pool.map(send, range(studies)))


def _study(number: int) -> Dataset:
    study = Dataset()
    study.SOPClassUID = CTImageStorage
    study.StudyInstanceUID, study.StudyID = f"1.2.826.{number}", f"S{number}"
    study.StudyDate, study.StudyTime = _day(number), "101500"
    study.PatientID, study.PatientName = f"P{number // 2}", f"Family{number % 5000}^Given{number % 300}"
    study.PatientBirthDate, study.PatientSex, study.AccessionNumber = "19600101", "O", f"A{number}"
    study.StudyDescription, study.Modality = f"CT thorax {number % 40}", "CT"
    return study


def _instance(study: Dataset, series: int, number: int) -> bytes:
    study.SeriesInstanceUID, study.SeriesNumber = f"{study.StudyInstanceUID}.{series}", series
    study.SOPInstanceUID, study.InstanceNumber = f"{study.SeriesInstanceUID}.{number}", number
    study.file_meta = FileMetaDataset()
    study.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    written = io.BytesIO()
    study.save_as(written, enforce_file_format=True)
    return written.getvalue()
