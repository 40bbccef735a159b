"""QIDO-RS in a large manifest: ours and Orthanc with its PostgreSQL index, both with the same studies.

A study search has to cost what its answer costs, not what the manifest holds. Each has a PostgreSQL server of its own,
with the same settings; rows are written in bulk on both sides (``synthetic``, ``orthanc_index``). Both are asked the
same by HTTP in turns, some dozens of searches each, and have to find the same studies.
"""

import asyncio
import gc
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from lean_client import LeanClient
from measure import Sample, Series, cpu_seconds
from orthanc_index import indexed_orthanc, study_date
from results import Table
from synthetic import INSTANCES, fill

from support.stack import imaging_up

TURNS, SEARCHES = 8, 50
"""Of each key and candidate, and searches of a turn."""
LIMIT = 20
PROVIDER = "local"
"""The storage space of `imaging up`."""
_STUDY = "0020000D"
_KEYS: dict[str, Callable[[int], dict[str, str]]] = {
    "patient id": lambda n: {"PatientID": f"P{n // 2}"},
    "accession number": lambda n: {"AccessionNumber": f"A{n}"},
    "study": lambda n: {"StudyInstanceUID": f"1.2.826.{n}"},
    "a day": lambda n: {"StudyDate": study_date(n)},
}


@dataclass
class Asked:
    """One that is searched: its address, its processes, and what searches cost so far."""

    name: str
    dicomweb: str
    pids: list[int]
    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0

    def quantile(self, at: float) -> float:
        """Seconds of a search."""
        return sorted(self.seconds)[min(int(len(self.seconds) * at), len(self.seconds) - 1)]


def compare(folder: Path, studies: int, peer_studies: int) -> list[Table]:
    """Two tables for each key: p50 and p99 of a search."""
    folder.mkdir(parents=True)
    with ExitStack() as running, ThreadPoolExecutor(1) as pool:
        stack = running.enter_context(imaging_up(folder, "--revisioning-delay", "3600"))
        filling = pool.submit(asyncio.run, _filled(str(stack.ready["postgres"]), studies))
        orthanc = running.enter_context(indexed_orthanc(folder / "orthanc", peer_studies))
        filling.result()
        tables = []
        for key, parameters in _KEYS.items():
            ours = Asked("ours", stack.url("dicomweb"), list(stack.ready["pids"].values()))
            peer = Asked("Orthanc, PostgreSQL index", orthanc.dicomweb, orthanc.pids)
            _in_turns([ours, peer], parameters, min(studies, peer_studies), studies == peer_studies)
            tables += _tables(key, [ours, peer], f"{studies * INSTANCES:,} and {peer_studies * INSTANCES:,} instances")
        return tables


async def _filled(address: str, studies: int) -> None:
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        await fill(connection, PROVIDER, 0, studies)


def _tables(key: str, asked: list[Asked], sizes: str) -> list[Table]:
    """The p99 is of few searches, so it varies: it is shown and not compared with the record."""
    tables = []
    for case, at in (("p50", 0.5), ("p99", 0.99)):
        series = [Series(one.name, [Sample(one.quantile(at), one.cpu / len(one.seconds))]) for one in asked]
        title = f"QIDO-RS study search by {key}, {case}; {sizes}"
        if case == "p99":
            title += "".join(f"; {one.name}: {one.quantile(0.99) / one.quantile(0.5):.1f} × its p50" for one in asked)
        tables.append(Table(f"qido-rs by {key}, {case}", title, series, compared=case == "p50"))
    return tables


def _in_turns(asked: list[Asked], parameters: Callable[[int], dict[str, str]], studies: int, same: bool) -> None:
    """Ask for studies here and there; the first turn warms up. The collector of this process rests meanwhile."""
    headers = {"Accept": "application/dicom+json"}
    with ExitStack() as connected:
        clients = [connected.enter_context(LeanClient(one.dicomweb, headers)) for one in asked]
        for turn in range(TURNS + 1):
            chosen = [(turn * SEARCHES + number) * 7919 % studies for number in range(SEARCHES)]
            answers = []
            for one, client in zip(asked, clients, strict=True):
                gc.collect()
                gc.disable()
                before = cpu_seconds(one.pids)
                seconds, found = _searched(client, one, [parameters(number) for number in chosen])
                if turn:
                    one.cpu += cpu_seconds(one.pids) - before
                    one.seconds += seconds
                gc.enable()
                answers.append(found)
            if same and any(answer != answers[0] for answer in answers):
                raise RuntimeError(f"the answers differ: {answers}")


def _searched(client: LeanClient, one: Asked, wanted: list[dict[str, str]]) -> tuple[list[float], list[set[str]]]:
    """Seconds of each search, and the studies that each found, which are some always."""
    seconds, answers = [], []
    for parameters in wanted:
        start = time.perf_counter()
        answer = client.get("/studies", parameters | {"limit": str(LIMIT)})
        seconds.append(time.perf_counter() - start)
        found = {match[_STUDY]["Value"][0] for match in json.loads(answer)}
        if not found:
            raise RuntimeError(f"{one.name} finds nothing by {parameters}")
        answers.append(found)
    return seconds, answers
