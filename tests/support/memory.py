"""Peak memory of processes, as the kernel counts it."""

import contextlib
import statistics
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

BOUND = 300 * 2**20
"""What a service may hold, bytes."""
BOUNDS = {"nats": 512 * 2**20, "postgres": 400 * 2**20, "s3": 1024 * 2**20}
"""What a server of somebody else's may hold under this load, bytes."""


def peak_resident(pids: dict[str, int]) -> dict[str, int]:
    """Highest resident set so far, bytes, of each named process; the largest of its children where it has any."""
    return {name: max(map(_high_water, _family(pid))) for name, pid in pids.items()}


def _family(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _high_water(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # a short-lived child of PostgreSQL
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


class MemoryWatch:
    """Samples the resident memory of a stack's processes, which may come and go, for the length of a block."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids
        self._peaks: dict[str, int] = {}
        self._samples: dict[str, list[int]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(10)

    def peaks(self) -> dict[str, int]:
        """Highest so far, bytes, of each named process; of its largest descendant where it has any."""
        return dict(self._peaks)

    def trend(self) -> dict[str, tuple[float, float]]:
        """Medians of the second and of the last quarter of the samples, MiB: the first is for warming up."""
        quarters = {name: len(sizes) // 4 for name, sizes in self._samples.items() if len(sizes) >= 8}
        return {
            name: (
                statistics.median(self._samples[name][quarter : 2 * quarter]) / 2**20,
                statistics.median(self._samples[name][-quarter:]) / 2**20,
            )
            for name, quarter in quarters.items()
        }

    def assert_bounded(self) -> None:
        """No service has had more than ``BOUND``, no server more than its own."""
        assert self._peaks
        over = {name: peak for name, peak in self._peaks.items() if peak > BOUNDS.get(name, BOUND)}
        assert over == {}, {name: f"{peak >> 20} MiB" for name, peak in over.items()}

    def _watch(self) -> None:
        while not self._stopped.wait(1):
            for name, size in _largest(self._pids()).items():
                self._peaks[name] = max(self._peaks.get(name, 0), size)
                self._samples.setdefault(name, []).append(size)


def _largest(pids: Mapping[str, int]) -> dict[str, int]:
    """Resident memory now, bytes, of each named process or of its largest descendant; one look at the process table."""
    found: dict[str, int] = {}
    names = {pid: name for name, pid in pids.items()}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            if (name := names.get(process.pid) or names.get(process.ppid())) is not None:
                names[process.pid] = name
                found[name] = max(found.get(name, 0), int(process.memory_info().rss))
    return found
