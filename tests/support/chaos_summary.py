"""What was injected and what came of it, as JSON and as a table for people."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

_HEADINGS = (
    "case",
    "faults",
    "acknowledged",
    "lost",
    "twice in the manifest",
    "delivered again",
    "longest wait, s",
    "peak memory of a service, MiB",
    "result",
)
SERVERS = ("nats", "postgres", "s3")


@dataclass
class Record:
    """One case. ``acknowledged`` is by sender; ``delivered_again`` counts what at-least-once allows, by subscriber;
    ``longest_wait`` is the time that an instance took to be acknowledged, seconds; ``peak_memory`` is in bytes."""

    case: str
    seed: int | None = None
    faults: list[dict[str, object]] = field(default_factory=list)
    acknowledged: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0
    twice_recorded: int = 0
    delivered_again: Mapping[str, int] = field(default_factory=dict)
    longest_wait: float = 0
    peak_memory: Mapping[str, int] = field(default_factory=dict)
    figures: dict[str, object] = field(default_factory=dict)
    seconds: float = 0
    result: str = "held"

    def row(self) -> tuple[object, ...]:
        """The cells under ``_HEADINGS``."""
        services = [size for name, size in self.peak_memory.items() if name not in SERVERS]
        return (
            self.case + (f" (seed {self.seed})" if self.seed is not None else ""),
            len(self.faults),
            sum(self.acknowledged.values()),
            self.lost,
            self.twice_recorded,
            sum(self.delivered_again.values()),
            f"{self.longest_wait:.1f}",
            round(max(services, default=0) / 2**20),
            self.result.splitlines()[0][:100],
        )


class Summary:
    """Rewritten after each case, so that a run that is cut short leaves one. Without a folder nothing is written."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._records = folder, list[Record]()

    @contextmanager
    def about(self, record: Record) -> Iterator[None]:
        """Keep the record, with the reason when the block fails."""
        begun = time.monotonic()
        try:
            yield
        except BaseException as error:
            record.result = f"failed: {type(error).__name__} {error}"
            raise
        finally:
            record.seconds = round(time.monotonic() - begun, 1)
            self._records.append(record)
            self._write()

    def _write(self) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        records = [asdict(record) for record in self._records]
        (self._folder / "summary.json").write_text(json.dumps(records, indent=2) + "\n")
        (self._folder / "summary.md").write_text(self.table())

    def table(self) -> str:
        """Markdown: the cases, and how long it took after each fault until every sender went on."""
        waits = [
            (record.case, fault["what"], fault["seconds"], fault["went_on_after"])
            for record in self._records
            for fault in record.faults
            if "went_on_after" in fault
        ]
        cases = _table(_HEADINGS, [record.row() for record in self._records])
        return cases + "\n" + _table(("case", "fault", "lasted, s", "all senders went on after, s"), waits)


def _table(headings: tuple[object, ...], rows: Sequence[tuple[object, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)
