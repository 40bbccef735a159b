"""``imaging up``: the whole product on this machine, shown to a person or to a script."""

import asyncio
import re
import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from imaging_services.cli.demo import Demo
from imaging_services.cli.status import show_counts, show_endpoints
from imaging_services.domain.errors import ImagingError, SettingsError
from imaging_services.local.configuration import StackConfiguration
from imaging_services.local.stack import LocalStack, StackOptions
from imaging_services.local.webhook import Webhook


class Ports(StrEnum):
    """Where the stack listens."""

    default = "default"
    auto = "auto"


def up(
    data_dir: Annotated[
        Path, typer.Option(help="Folder that holds all data; kept between runs.", rich_help_panel="Where")
    ] = Path("imaging-data"),
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of this site: the provider of its images and part of its events' source (default local).",
            rich_help_panel="Where",
            show_default=False,
        ),
    ] = None,
    ports: Annotated[
        Ports, typer.Option(help="The well-known ports, or free ones.", rich_help_panel="Where")
    ] = Ports.default,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of endpoints and process ids, written when everything is ready, removed at the end.",
            rich_help_panel="Where",
            show_default=False,
        ),
    ] = None,
    instance_binding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Deliver every instance: http(s)://…/studies by STOW-RS, dimse://AE@host:port by C-STORE, any other "
            "http(s)://… as CloudEvents webhook (stow+http://… and webhook+http://… say it outright). Repeatable.",
            rich_help_panel="Subscribers",
            show_default=False,
        ),
    ] = None,
    study_binding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Deliver every study revision: fhir+http(s)://…/ImagingStudy, or http(s)://… as CloudEvents webhook. "
            "Repeatable.",
            rich_help_panel="Subscribers",
            show_default=False,
        ),
    ] = None,
    revisioning_delay: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="SECONDS",
            help="Quiet time before a study revision is announced (default 30; 3 with --demo).",
            rich_help_panel="Subscribers",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Processes of each service that receives or serves images, for as many cores (default 1).",
            show_default=False,
        ),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Send real DICOM files and show each step.", rich_help_panel="Demo")
    ] = False,
    exit_after_demo: Annotated[
        bool, typer.Option("--exit", help="Stop when the demo is over.", rich_help_panel="Demo")
    ] = False,
) -> None:
    """Run the whole product on this machine until Ctrl-C.

    NATS, PostgreSQL, an S3 server and every service run as child processes; one that crashes is started again.
    Variables set in the shell (docs/settings.md) reach every service.
    """
    options = StackOptions(
        data_dir=data_dir,
        ports="auto" if ports is Ports.auto else "default",
        ready_file=ready_file.absolute() if ready_file else None,
        instance_bindings=tuple(instance_binding or ()),
        study_bindings=tuple(study_binding or ()),
        revisioning_delay=revisioning_delay or (3 if demo else None),
        name=_checked_name(name),
        workers=workers,
    )
    failure = asyncio.run(_run(options, demo=demo, exit_after_demo=exit_after_demo))
    if failure is not None:
        raise failure


def _checked_name(name: str | None) -> str | None:
    """It becomes part of URIs and is matched by selectors."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", name):
        raise SettingsError(f"--name {name}: use letters, digits and '-', at most 63")
    return name


async def _run(options: StackOptions, *, demo: bool, exit_after_demo: bool) -> ImagingError | None:
    """Returns what went wrong in the demo, if it did."""
    console = Console(highlight=False, soft_wrap=True)
    if not demo:
        await _serve(options, console)
        return None
    with Webhook() as webhook:
        options = StackOptions(**{**options.__dict__, "demo_webhook": webhook.url})
        show = Demo(console, webhook, exit_when_done=exit_after_demo)
        await _serve(options, console, show)
        return show.failure


async def _serve(options: StackOptions, console: Console, demo: Demo | None = None) -> None:
    stack = LocalStack(options, report=lambda text: console.print(text, style="yellow", markup=False))
    _stop_on_signals(stack.stop, console)
    console.print("starting NATS, PostgreSQL, S3 and the services …", style="dim")

    async def ready(configuration: StackConfiguration) -> None:
        show_endpoints(console, configuration)
        if demo is not None and not await demo.run(configuration):
            stack.stop.set()
            return
        await show_counts(console, configuration.url("events", "/query/counts"))

    await stack.run(ready)
    console.print("stopped; the data stays in " + str(options.data_dir), style="dim")


def _stop_on_signals(stop: asyncio.Event, console: Console) -> None:
    def stop_now() -> None:
        if not stop.is_set():
            console.print("\nstopping: services finish what they hold, then the servers …", style="dim")
        stop.set()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, stop_now)
