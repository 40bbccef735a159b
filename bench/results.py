"""What a run of the benchmarks gives: tables for people, and ratios that a later run is compared with.

A ratio is named ``<case>: <ours> / <peer>`` and is the peer's wall time over ours, so that above 1 ours is faster;
``(CPU)`` behind it is the same of CPU seconds. Of what has no peer the name says what it is; larger is better always.
"""

import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measure import Series

OUT = Path(__file__).parent / "out"
_OURS = "ours"


@dataclass(frozen=True)
class Table:
    """One comparison: ``case`` is its name in the record, whatever the sizes of the run are; ``size`` is the bytes that
    each candidate moves, 0 where that says nothing."""

    case: str
    title: str
    series: list[Series]
    size: int = 0
    compared: bool = True
    """Whether its ratios are of the record."""

    def ratios(self) -> dict[str, float]:
        """Every variant of ours against every peer, wall and CPU time."""
        found = {}
        for ours in (one for one in self.series if one.name.startswith(_OURS)):
            for peer in (one for one in self.series if not one.name.startswith(_OURS)):
                name = f"{self.case}: {ours.name} / {peer.name}"
                found[name] = peer.wall / ours.wall
                if peer.cpu and ours.cpu:
                    found[f"{name} (CPU)"] = peer.cpu / ours.cpu
        return found

    def cpu_per_gb(self, one: Series) -> float | None:
        """CPU seconds of all the candidate's processes for 10⁹ bytes."""
        return one.cpu / self.size * 1e9 if self.size and one.cpu else None

    def as_json(self) -> dict[str, Any]:
        """Title and figures, by candidate."""
        rows = {
            one.name: {"wall_seconds": one.wall, "cpu_seconds": one.cpu, "cpu_seconds_per_gb": self.cpu_per_gb(one)}
            for one in self.series
        }
        return {"title": self.title, "candidates": rows}


def seconds(value: float) -> str:
    """Three digits behind the point, and five where these say little."""
    return f"{value:.3f}" if value >= 0.1 else f"{value:.5f}"


def show(table: Table) -> None:
    """Print it; the ratios are to the first candidate."""
    first = table.series[0]
    print(f"{table.title}\n  {'':34}{'wall s':>10}{'CPU s':>10}{'CPU s/GB':>10}{'wall ratio':>12}{'CPU ratio':>12}")
    for one in table.series:
        wall, cpu = one.wall / first.wall, one.cpu / first.cpu if first.cpu else float("nan")
        per_gb = table.cpu_per_gb(one)
        shown = "" if per_gb is None else f"{per_gb:.1f}"
        print(f"  {one.name:34}{seconds(one.wall):>10}{seconds(one.cpu):>10}{shown:>10}{wall:12.2f}{cpu:12.2f}")
    print()


def save(tables: list[Table], figures: dict[str, float], options: dict[str, Any], name: str = "bench") -> Path:
    """Write ``bench/out/<name>.json``; cases of an earlier run that this one left out stay in it."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    ratios = dict(figures)
    for table in tables:
        ratios |= table.ratios() if table.compared else {}
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    cases = {table.case: table.as_json() | {"date": when, "options": options} for table in tables}
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "cases": before.get("cases", {}) | cases,
        "ratios": before.get("ratios", {}) | ratios,
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path
