"""`make bench-growth`: what searches and recording cost as the manifest grows.

Synthetic rows, 100 instances a study; at each size: p50 and p99 of searches as QIDO-RS and C-FIND make them, instances
recorded a second, memory of PostgreSQL's processes and of this one, size on disk. Writes bench/out/growth.json and
docs/images/growth*.svg.
"""

import argparse
import asyncio
import gc
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import structlog
from measure import cpu_seconds
from plot import Line, plot
from psycopg import AsyncConnection
from recording import BATCH, made
from results import OUT
from synthetic import INSTANCES, fill

from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.adapters.postgres.pool import Pool
from imaging_services.domain.manifest.query import Level, Query
from support.manifests import migrated_pool
from support.servers import fresh_database, running_postgres

SIZES = (10_000, 100_000, 1_000_000)
LARGEST = 5_000_000
SEARCHES = 400
_BATCHES = 8  # recorded at each size
_PROVIDER = "synthetic"
_IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    """Measure at each size, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help=f"instances; {LARGEST} takes long")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    gc.freeze()  # as every service does at its start
    with tempfile.TemporaryDirectory(prefix="imaging-growth-") as folder:
        Path(folder).chmod(0o755)
        points = asyncio.run(_measured(Path(folder), parser.parse_args().sizes))
    OUT.mkdir(exist_ok=True)
    (OUT / "growth.json").write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), "points": points}, indent=1) + "\n")
    for name, picture in _drawn(points).items():
        (_IMAGES / name).write_text(picture)


async def _measured(folder: Path, sizes: list[int]) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    with running_postgres(folder) as server, fresh_database(server) as database:
        async with migrated_pool(database) as pool:
            present = 0
            for size in sorted(sizes):
                studies = max(1, size // INSTANCES)
                started = time.perf_counter()
                async with await AsyncConnection.connect(database.conninfo, autocommit=True) as connection:
                    await fill(connection, _PROVIDER, present, studies)
                present = studies
                manifest = PostgresManifest(pool, "growth")
                point = {
                    "instances": size,
                    "filled_seconds": round(time.perf_counter() - started, 1),
                    "searches": {name: await _searched(manifest, kind, studies) for name, kind in _KINDS.items()},
                    **await _recorded(manifest, len(points), server.pid),
                    "disk_bytes": await _disk(pool),
                    "postgres_memory_bytes": _memory(server.pid),
                    "own_memory_bytes": psutil.Process().memory_info().rss,
                }
                points.append(point)
                print(json.dumps(point, indent=1), flush=True)
    return points


def _study(number: int) -> str:
    return f"1.2.826.{number}"


_KINDS = {
    "newest studies": lambda n: Query(Level.STUDY, provider=_PROVIDER, limit=50),
    "studies of a patient": lambda n: _of(Level.STUDY, {"00100020": (f"P{n // 2}",)}),
    "study by accession number": lambda n: _of(Level.STUDY, {"00080050": (f"A{n}",)}),
    "study by UID": lambda n: _of(Level.STUDY, {"0020000D": (_study(n),)}),
    "studies by name, wildcard": lambda n: _of(Level.STUDY, {"00100010": (f"Family{n % 5000}^*",)}),
    "studies by name, fuzzy": lambda n: _of(Level.STUDY, {"00100010": (f"given{n % 300} family{n % 5000}",)}, True),
    "CT studies of a week": lambda n: _of(Level.STUDY, {"00080020": (_week(n),), "00080061": ("CT",)}),
    "study of an instance": lambda n: _of(Level.STUDY, {"00080018": (f"{_study(n)}.1.7",)}),
    "C-FIND: series of a study": lambda n: _of(Level.SERIES, {"0020000D": (_study(n),)}),
    "C-FIND: instances of a series": lambda n: _of(
        Level.IMAGE, {"0020000D": (_study(n),), "0020000E": (f"{_study(n)}.1",)}
    ),
}


def _of(level: Level, filters: dict[str, tuple[str, ...]], fuzzy: bool = False) -> Query:
    return Query(level, filters=filters, fuzzy=fuzzy, provider=_PROVIDER, limit=50)


def _week(number: int) -> str:
    first = 1420070400 + number % 3600 * 86400
    return "-".join(time.strftime("%Y%m%d", time.gmtime(second)) for second in (first, first + 6 * 86400))


async def _searched(manifest: PostgresManifest, kind: Any, studies: int) -> dict[str, float]:
    """p50 and p99 in milliseconds of searches for studies here and there."""
    chosen = random.Random(7)
    seconds = []
    for turn in range(SEARCHES + 20):
        query = kind(chosen.randrange(studies))
        start = time.perf_counter()
        found = await manifest.search(query)
        if turn >= 20:
            seconds.append(time.perf_counter() - start)
        if not found:
            raise RuntimeError(f"nothing is found by {query}")
    seconds.sort()
    return {"p50": round(seconds[len(seconds) // 2] * 1e3, 3), "p99": round(seconds[len(seconds) * 99 // 100] * 1e3, 3)}


async def _recorded(manifest: PostgresManifest, number: int, server: int) -> dict[str, float]:
    """Instances a second of one recorder, the median of batches of ``BATCH``; CPU milliseconds an instance of it and of
    PostgreSQL, which say the same on a busy machine."""
    events = await made(_BATCHES * BATCH, f"1.2.826.9.{number}")
    seconds, own, theirs = [], time.process_time(), cpu_seconds([server])
    for at in range(0, len(events), BATCH):
        start = time.perf_counter()
        refused = [one for one in await manifest.record(events[at : at + BATCH]) if one]
        seconds.append(time.perf_counter() - start)
        if refused:
            raise refused[0]
    own, theirs = time.process_time() - own, cpu_seconds([server]) - theirs
    return {
        "recorded_per_second": round(BATCH / statistics.median(seconds)),
        "recorder_cpu_ms": round(own / len(events) * 1e3, 3),
        "postgres_cpu_ms": round(theirs / len(events) * 1e3, 3),
    }


async def _disk(pool: Pool) -> int:
    async with pool.connection() as connection:
        found = await (await connection.execute("SELECT pg_database_size(current_database())")).fetchone()
    return int(found[0]) if found else 0


def _memory(pid: int) -> int:
    """Proportional set size of PostgreSQL's processes: what they share counts once."""
    root = psutil.Process(pid)
    return sum(process.memory_full_info().pss for process in (root, *root.children(recursive=True)))


def _drawn(points: list[dict[str, Any]]) -> dict[str, str]:
    """Pictures by the name of their file."""

    def line(name: str, value: Callable[[dict[str, Any]], float]) -> Line:
        return Line(name, [(point["instances"], value(point)) for point in points])

    searches = [line(name, lambda point, name=name: point["searches"][name]["p50"]) for name in _KINDS]
    recording = [line("one recorder, batches of 500", lambda point: point["recorded_per_second"])]
    memory = [
        line("PostgreSQL", lambda point: point["postgres_memory_bytes"] / 1e6),
        line("searching process", lambda point: point["own_memory_bytes"] / 1e6),
        line("on disk", lambda point: point["disk_bytes"] / 1e6),
    ]
    return {
        "growth.svg": plot("p50 of a search, ms, by instances in the manifest", searches),
        "growth-recording.svg": plot("Instances recorded a second, by instances in the manifest", recording),
        "growth-memory.svg": plot("MB, by instances in the manifest", memory),
    }


if __name__ == "__main__":
    main()
