"""How much two ingester processes on one port do of what one does: C-STORE of many associations at a time.

    make bench-workers

Senders, database, message server and event processor run on the same machine, so the cores bound the ratio: beside it
stands what they allow, the wall time of one process over the longest of what has to be done one after another then
(half of the ingester's CPU seconds, or everybody's over the cores). Writes bench/out/workers.json.
"""

import argparse
import json
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ct_study import write_ct_study
from folder_space import FolderSpace, folder_space
from measure import cpu_seconds, measured

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
    runs = {count: Runs() for count in counts}
    with tempfile.TemporaryDirectory(prefix="imaging-workers-") as name, ExitStack() as open_:
        folder = Path(name)
        stack = open_.enter_context(imaging_up(folder, "--revisioning-delay", "3600"))
        spaces = {count: open_.enter_context(folder_space(stack, folder / f"space-{count}", count)) for count in counts}
        for number in range(arguments.rounds + 1):  # the first warms up and is not counted
            for count, space in spaces.items():
                _round(space, folder / f"{number}-{count}", arguments, runs[count] if number else Runs())
    _report(runs, arguments.instances)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--instances", type=int, default=640, help="of 525 KB in a round")
    parser.add_argument("--associations", type=int, default=64, help="in a round")
    return parser.parse_args()


def _round(space: FolderSpace, folder: Path, arguments: argparse.Namespace, runs: Runs) -> None:
    each = max(arguments.instances // arguments.associations, 1)
    studies = [
        write_ct_study(folder / str(place), each, _seed(folder, place)).folder
        for place in range(arguments.associations)
    ]
    ingester, servers, senders = cpu_seconds([space.ingestion_pid]), cpu_seconds(space.pids), _of_children()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
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


def _report(runs: dict[int, Runs], instances: int) -> None:
    cores, (one, several), count = os.cpu_count() or 1, list(runs.values()), max(runs)
    rows = {number: {name: median(values) for name, values in vars(each).items()} for number, each in runs.items()}
    for number, row in rows.items():
        print(
            f"{number} processes: {instances / row['wall']:7.1f} instances/s, wall {row['wall']:6.2f} s; CPU s: "
            f"ingester {row['ingester']:.2f}, all servers {row['servers']:.2f}, senders {row['senders']:.2f}"
        )
    bound = max(median(several.ingester) / count, (median(several.servers) + median(several.senders)) / cores)
    ratio, allowed = median(one.wall) / median(several.wall), min(median(one.wall) / bound, count)
    print(f"{count} processes do {ratio:.2f} times what one does; {cores} cores allow {allowed:.2f} times at most")
    OUT.mkdir(exist_ok=True)
    result = {"cores": cores, "instances": instances, "ratio": ratio, "allowed_by_cores": allowed, "medians": rows}
    (OUT / "workers.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
