"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_SECONDS = 30.0


class Meter:
    """Counts things towards a total, which may turn out to be larger. Use as a context."""

    def __init__(self, console: Console, doing: str, total: int) -> None:
        self._console, self._doing, self._total = console, doing, total
        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        self._bar = (
            Progress(*columns, TimeRemainingColumn(), console=console, transient=True) if _live(console) else None
        )
        self._task = self._bar.add_task(doing, total=total or None, rate="") if self._bar else None
        self._began = self._told = time.monotonic()
        self.done = 0

    @property
    def rate(self) -> float:
        """Things a second so far."""
        return self.done / max(time.monotonic() - self._began, 0.001)

    def show(self, done: int, position: str, total: int = 0) -> None:
        """So many are done, of ``total`` when that is known by now; ``position`` is where to go on from."""
        if not done:
            self._began = time.monotonic()
        self.done = done
        total = max(self._total, total, done)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, rate=f"{self.rate:,.0f}/s")
        elif time.monotonic() - self._told >= _LINE_SECONDS:
            self._told = time.monotonic()
            line = f"{self._doing}: {done:,} of {total:,}"
            if done:
                left = (total - done) / self.rate
                line += f", {self.rate:,.0f}/s, {left:,.0f} s left, at {position}"
            self._console.print(line, markup=False)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _live(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal
