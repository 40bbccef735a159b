"""`make bench`: this product beside DCMTK, pynetdicom and Orthanc, on the same files in one run.

Prints medians of wall time and of server CPU seconds, and the ratio peer / ours (above 1: ours is faster). The product
runs as `imaging up` runs it, with every flush to disk that the promises need; Orthanc runs with its defaults and the
DICOMweb plugin. Options: --instances, --rounds, --only.
"""

import argparse
import json
import platform
import tempfile
from pathlib import Path

import frames
import reception
import services
import streaming
from measure import Series

OUT = Path(__file__).parent / "out"


def main() -> None:
    """Run the benchmarks that were asked for; print a table and write bench/out/bench.json."""
    arguments = _arguments()
    results: list[tuple[str, list[Series]]] = []
    with tempfile.TemporaryDirectory(prefix="imaging-bench-") as folder:
        if "reception" in arguments.only:
            results += reception.compare(Path(folder) / "reception", arguments.instances, arguments.rounds)
        if "services" in arguments.only:
            results += services.compare(Path(folder) / "services", arguments.instances, arguments.rounds)
        if "streaming" in arguments.only:
            results += streaming.compare(Path(folder) / "streaming", arguments.instances, arguments.rounds)
        if "frames" in arguments.only:
            frames.report(Path(folder) / "frames")
    print(
        f"\n{platform.machine()}, {platform.python_version()}, {arguments.instances} CT instances of 525 KB, ", end=""
    )
    print(f"median of {arguments.rounds} alternating rounds; ratio = other / ours, above 1 means ours is faster\n")
    for title, series in results:
        _print_table(title, series)
    OUT.mkdir(exist_ok=True)
    (OUT / "bench.json").write_text(json.dumps({title: _as_json(series) for title, series in results}, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parts = ["reception", "services", "streaming", "frames"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts[:2], help="the others only when named")
    return parser.parse_args()


def _print_table(title: str, series: list[Series]) -> None:
    ours = series[0]
    print(f"{title}\n  {'':34}{'wall s':>10}{'CPU s':>10}{'wall ratio':>12}{'CPU ratio':>12}")
    for one in series:
        wall, cpu = one.wall / ours.wall, one.cpu / ours.cpu if ours.cpu else float("nan")
        print(f"  {one.name:34}{one.wall:10.3f}{one.cpu:10.2f}{wall:12.2f}{cpu:12.2f}")
    print()


def _as_json(series: list[Series]) -> dict[str, dict[str, float]]:
    return {one.name: {"wall": one.wall, "cpu": one.cpu, "wall_ratio": one.wall / series[0].wall} for one in series}


if __name__ == "__main__":
    main()
