"""How much two ingester processes on one port do of what one does: C-STORE of many associations at a time.

    make bench-workers

Senders, database, message server and event processor run on the same machine, so the cores bound the ratio: beside it
stands what they allow, the wall time of one process over the longest of what has to be done one after another then
(half of the ingester's CPU seconds, or everybody's over the cores). So it is measured twice: with the processes as they
are, and with each of them given a part of a core only (``--share``), one process and two alike; then the others have
cores enough for both, as in a cluster, and the ratio says what a second process adds. Writes bench/out/workers.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
from ct_study import write_ct_study
from folder_space import FolderSpace, folder_space
from measure import cpu_seconds, measured
from throttle import throttled

from support.stack import imaging_up

OUT = Path(__file__).parent / "out"
STORESCU = "/usr/bin/storescu"
AT_A_TIME = 8
"""Associations open at a time. There are several times as many in all: the kernel spreads them by a hash."""


@dataclass
class Runs:
    """Of one number of processes: seconds."""

    wall: list[float] = field(default_factory=list)
    ingester: list[float] = field(default_factory=list)
    servers: list[float] = field(default_factory=list)
    senders: list[float] = field(default_factory=list)


def main() -> None:
    """Measure in turn, print medians and ratios."""
    arguments = _arguments()
    counts = (1, arguments.workers)
    runs = {share: {count: Runs() for count in counts} for share in (1.0, arguments.share)}
    with tempfile.TemporaryDirectory(prefix="imaging-workers-") as name, ExitStack() as open_:
        folder = Path(name)
        stack = open_.enter_context(imaging_up(folder, "--revisioning-delay", "3600"))
        spaces = {count: open_.enter_context(folder_space(stack, folder / f"space-{count}", count)) for count in counts}
        for number in range(arguments.rounds + 1):  # the first warms up and is not counted
            for share, by_count in runs.items():
                for count, space in spaces.items():
                    place = folder / f"{number}-{share}-{count}"
                    _round(space, place, arguments, share, by_count[count] if number else Runs())
                    shutil.rmtree(place)
    _report(runs, arguments.instances)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.2, help="of a core for each process, the second time")
    parser.add_argument("--instances", type=int, default=640, help="of 525 KB in a round")
    parser.add_argument("--associations", type=int, default=64, help="in a round")
    return parser.parse_args()


def _round(space: FolderSpace, folder: Path, arguments: argparse.Namespace, share: float, runs: Runs) -> None:
    each = max(arguments.instances // arguments.associations, 1)
    studies = [
        write_ct_study(folder / str(place), each, _seed(folder, place)).folder
        for place in range(arguments.associations)
    ]
    ingester, servers, senders = cpu_seconds([space.ingestion_pid]), cpu_seconds(space.pids), _of_children()
    parent = psutil.Process(space.ingestion_pid)
    workers = [one.pid for one in parent.children()] or [parent.pid]
    with throttled(workers, share), ThreadPoolExecutor(AT_A_TIME) as pool:
        sample = measured(lambda: list(pool.map(lambda study: _send(space, study), studies)) and None, [])
    runs.wall.append(sample.wall)
    runs.ingester.append(cpu_seconds([space.ingestion_pid]) - ingester)
    runs.servers.append(cpu_seconds(space.pids) - servers)
    runs.senders.append(_of_children() - senders)


def _seed(folder: Path, place: int) -> int:
    """A seed of its own for each study."""
    return int.from_bytes(f"{folder.name}/{place}".encode()[-6:], "big")


def _send(space: FolderSpace, study: Path) -> None:
    address = space.dimse
    command = [STORESCU, "-aec", str(address["ae_title"]), str(address["host"]), str(address["port"]), "+sd"]
    subprocess.run([*command, str(study)], check=True, env={**os.environ, "TCP_NODELAY": "1"})


def _of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _report(runs: dict[float, dict[int, Runs]], instances: int) -> None:
    cores, results = os.cpu_count() or 1, []
    for share, by_count in runs.items():
        (one, several), count = list(by_count.values()), max(by_count)
        rows = {
            number: {name: median(values) for name, values in vars(each).items()} for number, each in by_count.items()
        }
        print(f"each process with {share:.0%} of a core")
        for number, row in rows.items():
            print(
                f"  {number} processes: {instances / row['wall']:7.1f} instances/s, wall {row['wall']:6.2f} s; CPU s: "
                f"ingester {row['ingester']:.2f}, all servers {row['servers']:.2f}, senders {row['senders']:.2f}"
            )
        bound = max(
            median(several.ingester) / count / share, (median(several.servers) + median(several.senders)) / cores
        )
        ratio, allowed = median(one.wall) / median(several.wall), min(median(one.wall) / bound, count)
        print(f"  {count} do {ratio:.2f} times what one does; {cores} cores allow {allowed:.2f} times at most")
        results.append({"share": share, "ratio": ratio, "allowed_by_cores": allowed, "medians": rows})
    OUT.mkdir(exist_ok=True)
    result = {"date": time.strftime("%Y-%m-%d"), "cores": cores, "instances": instances, "measured": results}
    (OUT / "workers.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
