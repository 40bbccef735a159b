"""Wall time of a client's run and CPU time of a server's processes during it."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import psutil


@dataclass(frozen=True)
class Sample:
    """One run: seconds of wall time and CPU seconds that the server's processes used."""

    wall: float
    cpu: float


@dataclass
class Series:
    """The runs of one candidate."""

    name: str
    samples: list[Sample] = field(default_factory=list)

    @property
    def wall(self) -> float:
        """Median wall time, seconds."""
        return statistics.median(sample.wall for sample in self.samples)

    @property
    def cpu(self) -> float:
        """Median server CPU time, seconds."""
        return statistics.median(sample.cpu for sample in self.samples)


def measured(run: Callable[[], None], server_pids: Iterable[int]) -> Sample:
    """Run once. The server's CPU time counts its processes and all their children."""
    pids = list(server_pids)
    before, start = cpu_seconds(pids), time.perf_counter()
    run()
    wall = time.perf_counter() - start
    return Sample(wall, cpu_seconds(pids) - before)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system seconds used so far by these processes and their children, ended children included."""
    total = 0.0
    for process in _tree(pids):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _tree(pids: Iterable[int]) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    for pid in pids:
        try:
            root = psutil.Process(pid)
            found |= {root, *root.children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
    return found
