"""Peak memory of processes, as the kernel counts it."""

from pathlib import Path

import psutil


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
