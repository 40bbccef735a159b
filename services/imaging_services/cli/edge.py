"""``imaging edge status``: how the spool of an edge stands, from the metrics of its health port."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live
from rich.table import Table

from imaging_services.domain.errors import BackendUnavailable
from imaging_services.local.readiness import http_get

_PREFIX = "imaging_edge_"
_OF_ALL_WORKERS = ("spooled_instances_total", "spooled_bytes_total", "refused_total")
_LITTLE = 1e-9

app = typer.Typer(no_args_is_help=True, help="The hospital's side: a proxy with its own NATS server and spool.")


@dataclass(frozen=True)
class EdgeStatus:
    """Sizes are bytes, times seconds, rates those of the last moments. ``drained_in_seconds`` is None while what
    waits does not become less."""

    hub_connected: bool
    takes_instances: bool
    instances: int
    bytes: int
    limit_bytes: int
    oldest_seconds: float
    in_instances_per_second: float
    in_bytes_per_second: float
    out_instances_per_second: float
    out_bytes_per_second: float
    drained_in_seconds: float | None
    refused: int
    disk_free_bytes: int


@app.callback()
def _group() -> None:
    """More than one command may come."""


@app.command()
def status(
    url: Annotated[
        str, typer.Option(help="The edge's health port; default: HEALTH_PORT of the environment on this machine.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    seconds: Annotated[float, typer.Option(min=0.2, max=60, help="Time over which rates are measured.")] = 2.0,
) -> None:
    """Show what waits in an edge's spool, how old it is, what comes in and goes out, and when it will be empty."""
    address = (url or f"http://127.0.0.1:{os.environ.get('HEALTH_PORT') or 9090}").rstrip("/") + "/metrics"
    console = Console(highlight=False, soft_wrap=True)
    found = _each(address, seconds)
    try:
        if as_json:
            for one in found:
                typer.echo(json.dumps(asdict(one)))
                if not watch:
                    return
        elif watch and console.is_terminal:
            with Live(console=console, refresh_per_second=4) as live:
                for one in found:
                    live.update(_table(one))
        else:
            for one in found:
                console.print(_table(one))
                if not watch:
                    return
    except KeyboardInterrupt:
        return


def _each(address: str, seconds: float) -> Iterator[EdgeStatus]:
    before, at = _scraped(address), time.monotonic()
    while True:
        time.sleep(seconds)
        after, now = _scraped(address), time.monotonic()
        yield between(before, after, now - at)
        before, at = after, now


def _scraped(address: str) -> dict[str, float]:
    answer = http_get(address, seconds=5)
    if answer is None or answer[0] != 200:
        raise BackendUnavailable(f"{address} does not answer: is the edge running, with HEALTH_PORT set?")
    values = edge_metrics(answer[1].decode())
    if "spool_limit_bytes" not in values:
        raise BackendUnavailable(f"{address} is not the health port of an edge: see docs/edge.md")
    return values


def edge_metrics(text: str) -> dict[str, float]:
    """The edge's values on a page of metrics. Of several workers, each with a page of its own in it, counters are
    added up; of the rest, which all of them see alike, the largest counts."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix(_PREFIX)
            if name == sample.name:
                continue
            known = values.get(name, 0.0)
            values[name] = known + sample.value if name in _OF_ALL_WORKERS else max(known, sample.value)
    return values


def between(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> EdgeStatus:
    """The status at the second of two looks; what went out is what came in and is not there any more."""

    def rate(name: str) -> float:
        return (after.get(name, 0.0) - before.get(name, 0.0)) / seconds

    come, come_bytes = max(rate("spooled_instances_total"), 0.0), max(rate("spooled_bytes_total"), 0.0)
    gone_bytes = max(come_bytes - rate("spool_bytes"), 0.0)
    less, waiting = gone_bytes - come_bytes, after.get("spool_bytes", 0.0)
    drained = 0.0 if not after.get("spool_instances") else waiting / less if less > _LITTLE else None
    return EdgeStatus(
        hub_connected=bool(after.get("hub_connected")),
        takes_instances=bool(after.get("spool_open")),
        instances=int(after.get("spool_instances", 0)),
        bytes=int(waiting),
        limit_bytes=int(after["spool_limit_bytes"]),
        oldest_seconds=round(after.get("spool_oldest_seconds", 0.0), 1),
        in_instances_per_second=round(come, 1),
        in_bytes_per_second=round(come_bytes),
        out_instances_per_second=round(max(come - rate("spool_instances"), 0.0), 1),
        out_bytes_per_second=round(gone_bytes),
        drained_in_seconds=None if drained is None else round(drained, 1),
        refused=int(after.get("refused_total", 0)),
        disk_free_bytes=int(after.get("disk_free_bytes", 0)),
    )


def _table(status: EdgeStatus) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    drained = "nothing leaves" if status.drained_in_seconds is None else _span(status.drained_in_seconds)
    rows = {
        "hub": "[green]connected[/green]" if status.hub_connected else "[red]not connected[/red]",
        "spool": f"{status.instances:,} instances, {_size(status.bytes)} of {_size(status.limit_bytes)}"
        + ("" if status.takes_instances else "  [red]full: C-STORE gets A700H[/red]"),
        "oldest": _span(status.oldest_seconds) if status.instances else "–",
        "in": f"{status.in_instances_per_second:,.1f} instances/s, {_size(status.in_bytes_per_second)}/s",
        "out": f"{status.out_instances_per_second:,.1f} instances/s, {_size(status.out_bytes_per_second)}/s",
        "empty in": drained if status.instances else "is empty",
        "refused": f"{status.refused:,} since the start",
        "disk": f"{_size(status.disk_free_bytes)} free",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
