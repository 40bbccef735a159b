"""``imaging dead-letters`` and ``imaging redrive``: what was given up on, and putting it back."""

import asyncio
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from imaging_services.adapters.nats.relay_dead_letters import Redriven
from imaging_services.cli.dead_letter_sources import Row, open_sources, total
from imaging_services.cli.target import DataDir, TargetSettings, load_target
from imaging_services.domain.errors import SettingsError

Consumer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Only this one: a binding's name, relay-A or relay-B (instances for that end of the DIMSE relay), "
        "mailbox-NAME (the event bridge's, when NATS_URL is set).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def dead_letters(data_dir: DataDir = None, consumer: Consumer = None, as_json: AsJson = False) -> None:
    """List what was given up on, with the reason."""
    settings, _ = load_target(data_dir)
    rows = asyncio.run(_list(settings, consumer))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row.__dict__))
        return
    _show(Console(highlight=False, soft_wrap=True), rows, data_dir)


def redrive(
    data_dir: DataDir = None,
    consumer: Consumer = None,
    sequence: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Only these, of one --consumer. Repeatable.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back: each is delivered again, to its own consumer only.

    Versions of an instance that were given up on because a later one is there are left out. One that is named by
    --sequence counts as sent now, and replaces the later one.
    """
    if sequence and consumer is None:
        raise SettingsError("--sequence needs --consumer: each consumer counts on its own")
    settings, _ = load_target(data_dir)
    done = asyncio.run(_redrive(settings, consumer, sequence or None))
    if as_json:
        typer.echo(json.dumps({"redriven": done.put_back, "superseded": done.superseded}))
        return
    typer.echo(f"{done.put_back} put back")
    if done.superseded:
        versions = "1 superseded version" if done.superseded == 1 else f"{done.superseded} superseded versions"
        typer.echo(f"{versions} left out: name one by --consumer and --sequence to let it replace the later one")


async def _list(settings: TargetSettings, consumer: str | None) -> list[Row]:
    async with open_sources(settings) as sources:
        return [row for source in sources async for row in source.rows(consumer)]


async def _redrive(settings: TargetSettings, consumer: str | None, sequences: Sequence[int] | None) -> Redriven:
    async with open_sources(settings) as sources:
        return total([await source.redrive(consumer, sequences) for source in sources])


def _show(console: Console, rows: list[Row], data_dir: Path | None) -> None:
    """A paragraph each: ids and reasons are too long for the columns of a table."""
    if not rows:
        console.print("no dead letters")
        return
    for row in rows:
        tries = "1 try" if row.tries == 1 else f"{row.tries} tries"
        console.print(f"{row.consumer} {row.sequence}", style="bold", end="", markup=False)
        console.print(f"  {row.failed_at}, after {tries}", style="dim", markup=False)
        console.print(f"  {row.what}", markup=False)
        console.print(f"  {row.reason}\n", style="red", markup=False)
    where = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir is not None else ""
    console.print(
        f"{len(rows)} dead letters; put them back with: imaging redrive{where} [--consumer NAME] [--sequence N]…",
        style="dim",
        markup=False,
    )
