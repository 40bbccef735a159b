"""`make bench-compare`: the ratios of the last run beside the committed record; what got worse ends it with code 1.

Ratios of systems on the same machine in the same run vary less than their times, by some 10 % all the same; the
tolerance is above that. `python bench/compare.py --record` makes the last run the record.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
RECORD = HERE / "record.json"
LAST = HERE / "out" / "bench.json"
TOLERANCE = 0.25


@dataclass(frozen=True)
class Comparison:
    """Ratios by name: of those in both, before and now; and the names that only one of them has."""

    worse: dict[str, tuple[float, float]]
    better: dict[str, tuple[float, float]]
    same: dict[str, tuple[float, float]]
    missing: list[str]
    new: list[str]


def compare(record: Mapping[str, float], last: Mapping[str, float], tolerance: float) -> Comparison:
    """Larger is better; a ratio is worse when it is smaller by more than ``tolerance``, a part of what it was."""
    found = Comparison({}, {}, {}, [name for name in record if name not in last], [n for n in last if n not in record])
    for name, before in record.items():
        if name not in last:
            continue
        now = last[name]
        if now < before * (1 - tolerance):
            found.worse[name] = before, now
        elif now > before / (1 - tolerance):
            found.better[name] = before, now
        else:
            found.same[name] = before, now
    return found


def told(found: Comparison) -> str:
    """The comparison for people; what got worse comes first."""
    lines = []
    for title, ratios in (("worse", found.worse), ("better", found.better), ("as before", found.same)):
        lines += [f"{title}:"] if ratios else []
        lines += [f"  {name}: {before:.2f} -> {now:.2f}" for name, (before, now) in sorted(ratios.items())]
    lines += [f"not measured in the last run: {name}" for name in sorted(found.missing)]
    lines += [f"not in the record: {name}" for name in sorted(found.new)]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Compare, or make the last run the record; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="make the last run the record")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="as a part of the ratio")
    parser.add_argument("--files", nargs=2, type=Path, default=(RECORD, LAST), help="the record and the last run")
    options = parser.parse_args(arguments)
    record, last = options.files
    if not last.exists():
        print(f"there is no {last.name} to compare: run make bench first", file=sys.stderr)
        return 2
    if options.record:
        document = json.loads(last.read_text())
        kept = {"machine": document["machine"], "ratios": document["ratios"]}
        record.write_text(json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        print(f"{len(kept['ratios'])} ratios recorded in {record.name}")
        return 0
    if not record.exists():
        print(f"there is no {record.name} to compare with: make one with --record", file=sys.stderr)
        return 2
    found = compare(*(json.loads(path.read_text()).get("ratios", {}) for path in (record, last)), options.tolerance)
    print(told(found))
    return 1 if found.worse else 0


if __name__ == "__main__":
    sys.exit(main())
