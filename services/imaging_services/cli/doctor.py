"""``imaging doctor``: one line for each thing that the product needs, and what to do where it is wrong."""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from imaging_services.cli.checks import Finding, examine
from imaging_services.cli.target import DataDir, load_target
from imaging_services.domain.errors import SettingsError

_MARKS = {True: "[green]✓[/green]", False: "[red]✗[/red]", None: "[yellow]-[/yellow]"}


def doctor(
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Check the configuration and every backend; exit code 1 when something is wrong.

    Looks at a local stack with --data-dir, else at what the variables of the environment name.
    """
    console = Console(highlight=False, soft_wrap=True)
    try:
        settings, stack = load_target(data_dir)
        findings = asyncio.run(examine(settings, stack))
    except SettingsError as error:
        findings = [Finding("configuration", False, str(error))]
    for finding in findings:
        if as_json:
            typer.echo(json.dumps(asdict(finding)))
        else:
            console.print(f"{_MARKS[finding.good]} [bold]{finding.what}[/bold]  ", end="")
            console.print(finding.sentence, markup=False)
    if any(finding.good is False for finding in findings):
        raise typer.Exit(1)
