"""`make bench`: this product beside DCMTK, pynetdicom and Orthanc, on the same files in one run.

Prints medians of wall time and of server CPU seconds, and the ratio peer / ours (above 1: ours is faster). The product
runs as `imaging up` runs it, with every flush to disk that the promises need; Orthanc runs with its defaults and the
DICOMweb plugin. Writes bench/out/bench.json, which `make bench-compare` compares with the record. Options: --instances,
--rounds, --only, --s3.
"""

import argparse
import platform
import tempfile
from pathlib import Path

import frames
import reception
import recording
import searches
import services
import streaming
import wan
from results import Table, save, show
from s3_server import VERSITYGW

_BY_DEFAULT = ["reception", "services", "recording", "searches"]


def main() -> None:
    """Run the benchmarks that were asked for; print tables and write bench/out/bench.json."""
    arguments = _arguments()
    tables: list[Table] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="imaging-bench-") as name:
        folder = Path(name)
        for part, compared in (
            ("reception", reception),
            ("services", services),
            ("streaming", streaming),
            ("wan", wan),
        ):
            if part in arguments.only:
                other = {"s3": arguments.s3, "s3_endpoint": arguments.s3_endpoint} if part == "services" else {}
                tables += compared.compare(folder / part, arguments.instances, arguments.rounds, **other)
        if "recording" in arguments.only:
            figures |= recording.report(folder / "recording")
        if "searches" in arguments.only:
            tables += searches.compare(
                folder / "searches", arguments.studies, arguments.peer_studies or arguments.studies
            )
        if "frames" in arguments.only:
            frames.report(folder / "frames")
    print(
        f"\n{platform.machine()}, {platform.python_version()}, {arguments.instances} CT instances of 525 KB, ", end=""
    )
    print(
        f"median of {arguments.rounds} alternating rounds; ratio = other / first, above 1 means the first is faster\n"
    )
    for table in tables:
        show(table)
    options = {name: getattr(arguments, name) for name in ("instances", "rounds", "studies", "peer_studies")}
    print(f"written to {save(tables, figures, options)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--studies", type=int, default=10_000, help="of 100 instances, in the manifest that is searched"
    )
    parser.add_argument("--peer-studies", type=int, help="of 100 instances, in Orthanc when searched; else as many")
    parser.add_argument(
        "--s3", choices=[VERSITYGW], help="ours on this S3 server as well; Go builds it, which takes long"
    )
    parser.add_argument("--s3-endpoint", help="ours on this one as well, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY")
    parts = [*_BY_DEFAULT, "streaming", "frames", "wan"]
    parser.add_argument("--only", nargs="+", choices=parts, default=_BY_DEFAULT, help="the others only when named")
    return parser.parse_args()


if __name__ == "__main__":
    main()
