"""What a person sees of a running stack: the endpoints, then the counts as they move."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from imaging_services.local.configuration import (
    BUCKET,
    DATABASE,
    DATABASE_USER,
    INGESTION_AE,
    PROXY_AE,
    StackConfiguration,
)
from imaging_services.local.ports import LOOPBACK
from imaging_services.local.readiness import http_json

_SECONDS = 1.0


def show_endpoints(console: Console, configuration: StackConfiguration) -> None:
    """What is where, in three groups: for senders, for subscribers, and the servers underneath."""
    proxy = f"{PROXY_AE}@{LOOPBACK}:{configuration.port('dimse-proxy')}"
    groups = [
        {
            "DICOM, through the proxy": proxy,
            "DICOM, ingestion itself": f"{INGESTION_AE}@{LOOPBACK}:{configuration.port('dimse-ingestion')}",
            "DICOMweb": configuration.url("dicomweb", "/dicomweb"),
        },
        {one.name: one.binding.target for one in configuration.subscribers},
        {
            "CloudEvents in": configuration.url("events", "/"),
            "query API": configuration.url("events", "/query"),
            "NATS": configuration.nats.url,
            "PostgreSQL": f"{LOOPBACK}:{configuration.port('postgres')}, database {DATABASE}, user {DATABASE_USER}",
            "S3": f"{configuration.s3.endpoint}, bucket {BUCKET}",
        },
    ]
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="cyan", no_wrap=True, overflow="ignore")
    for group in filter(None, groups):
        table.add_row("")
        for name, address in group.items():
            table.add_row(name, address)
    console.print("[bold green]imaging is up[/bold green]")
    console.print(table)
    console.print(
        f"\ndata and logs: {configuration.folder.path}; passwords: state.json there", style="dim", markup=False
    )
    console.print(f"try: {_program()} send FILES --to {proxy}      Ctrl-C stops everything\n", style="dim")


def _program() -> str:
    """How the person who started this can call it again."""
    called = Path(sys.argv[0])
    found = shutil.which("imaging")
    if found is not None and Path(found).resolve() == called.resolve():
        return "imaging"
    return os.path.relpath(called) if called.is_relative_to(Path.cwd()) or not called.is_absolute() else str(called)


async def show_counts(console: Console, url: str) -> None:
    """Instances, studies and events until cancelled: one moving line on a terminal, else a line at each change."""
    if not (console.is_terminal and sys.stdout.isatty()):
        await _print_counts(console, url)
        return
    with Live(_line(None), console=console, refresh_per_second=4, transient=True) as live:
        while True:
            live.update(_line(await asyncio.to_thread(http_json, url)))
            await asyncio.sleep(_SECONDS)


async def _print_counts(console: Console, url: str) -> None:
    shown = ""
    while True:
        counts = await asyncio.to_thread(http_json, url)
        line = _line(counts).plain
        if counts is not None and line != shown:
            console.print(line)
            shown = line
        await asyncio.sleep(_SECONDS)


def _line(counts: dict[str, int] | None) -> Text:
    if counts is None:
        return Text("waiting for the event processor …", style="yellow")
    parts = []
    for name in ("instances", "studies", "events"):
        parts += [(f"{counts.get(name, 0):,}", "bold cyan"), (f" {name}   ", "")]
    return Text.assemble(*parts)
