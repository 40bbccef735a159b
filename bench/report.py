"""Write the figures of the last runs into docs/performance.md, between the marks that name their file."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import OUT, seconds

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
_MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Every block whose file is there is written anew."""
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(_MARKED.sub(_block, text))


def _block(found: re.Match[str]) -> str:
    path = OUT / f"{found[2]}.json"
    if not path.exists():
        return found[0]
    return f"{found[1]}{_TABLES[found[2]](json.loads(path.read_text()))}\n{found[3]}"


def comparison(document: dict[str, Any]) -> str:
    """Every case of ``make bench``."""
    lines = [f"{document['machine']}.", ""]
    lines += ["| case | | wall s | CPU s | CPU s per GB | peer ÷ ours |", "|---|---|---|---|---|---|"]
    for case, table in document["cases"].items():
        for number, (name, row) in enumerate(table["candidates"].items()):
            per_gb = row["cpu_seconds_per_gb"]
            ratios = [
                f"{ratio:.2f} ({full.split(' / ')[1]})"
                for full, ratio in document["ratios"].items()
                if full.startswith(f"{case}: {name} / ") and not full.endswith("(CPU)")
            ]
            title = f"{table['title']} ({table['date']})" if number == 0 else ""
            figures = [seconds(row["wall_seconds"]), seconds(row["cpu_seconds"]), f"{per_gb:.1f}" if per_gb else ""]
            lines.append(f"| {' | '.join([title, name, *figures, ', '.join(ratios)])} |")
    alone = [(name, value) for name, value in document["ratios"].items() if " / " not in name]
    lines += ["", *(f"- {name}: {value:,.0f}" for name, value in alone)] if alone else []
    return "\n".join(lines)


def growth(document: dict[str, Any]) -> str:
    """p50 and p99 of each search at each size, and the rest below them."""
    points = document["points"]
    head = [f"{point['instances']:,}" for point in points]
    lines = [f"Run of {document['date']}; p50 / p99 in ms.", ""]
    lines += [f"| instances | {' | '.join(head)} |", "|---" * (len(points) + 1) + "|"]
    for name in points[0]["searches"]:
        cells = [f"{point['searches'][name]['p50']:.1f} / {point['searches'][name]['p99']:.1f}" for point in points]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    rest: dict[str, Callable[[dict[str, Any]], str]] = {
        "instances recorded a second": lambda point: f"{point['recorded_per_second']:,.0f}",
        "CPU ms an instance recorded: recorder, PostgreSQL": lambda point: (
            f"{point['recorder_cpu_ms']:.2f}, {point['postgres_cpu_ms']:.2f}" if "recorder_cpu_ms" in point else ""
        ),
        "on disk, MB": lambda point: f"{point['disk_bytes'] / 1e6:,.0f}",
        "memory of PostgreSQL, MB": lambda point: f"{point['postgres_memory_bytes'] / 1e6:,.0f}",
        "memory of the searching process, MB": lambda point: f"{point['own_memory_bytes'] / 1e6:,.0f}",
    }
    lines += [f"| {name} | {' | '.join(map(shown, points))} |" for name, shown in rest.items()]
    return "\n".join(lines)


def workers(document: dict[str, Any]) -> str:
    """Instances a second by the number of processes, as they are and with a part of a core each."""
    lines = [f"Run of {document['date']} on {document['cores']} cores, medians.", ""]
    lines += ["| share of a core for each process | processes | instances/s | ingester, CPU s | ratio | cores allow |"]
    lines += ["|---|---|---|---|---|---|"]
    for measured in document["measured"]:
        for number, row in measured["medians"].items():
            ratios = [f"{measured['ratio']:.2f}", f"{measured['allowed_by_cores']:.2f}"] if number != "1" else ["", ""]
            rate, cpu = document["instances"] / row["wall"], row["ingester"]
            cells = [f"{measured['share']:.0%}", number, f"{rate:.0f}", f"{cpu:.1f}", *ratios]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_TABLES = {"bench": comparison, "growth": growth, "workers": workers}


if __name__ == "__main__":
    main()
