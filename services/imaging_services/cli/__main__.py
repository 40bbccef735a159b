"""The ``imaging`` command: every error is one line, never a traceback."""

import contextlib
import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from imaging_services import runtime
from imaging_services.cli.components import run_component
from imaging_services.domain.errors import ImagingError, SettingsError

HELP = """Extends a hospital's imaging to the cloud: DICOM in, stored, catalogued, queryable, announced.

Start here: [bold]imaging up[/bold] runs the whole product on this machine and prints where to send; \
[bold]imaging up --demo[/bold] also sends real DICOM files and shows each step.
"""


def build(arguments: list[str]) -> typer.Typer:
    """The command line. ``imaging run`` alone does not import what the other commands need: a service would carry it
    in memory for its whole life."""
    app = typer.Typer(
        name="imaging",
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    if arguments[:1] == ["run"]:
        app.command("run", rich_help_panel="Services")(run_component)
        return app
    runtime.configure_logging(os.environ.get("LOG_LEVEL", "error"), "console")
    _add_local(app)
    app.command("run", rich_help_panel="Services")(run_component)
    _add_operations(app)
    return app


def _add_local(app: typer.Typer) -> None:
    from imaging_services.cli import backend, send, up

    app.command("up", rich_help_panel="On one machine")(up.up)
    app.command("backend", rich_help_panel="On one machine")(backend.backend)
    app.command("send", rich_help_panel="On one machine")(send.send)


def _add_operations(app: typer.Typer) -> None:
    from imaging_services.cli import audit, dead_letters, doctor, edge, rebuild, stream

    app.command("doctor", rich_help_panel="Operations")(doctor.doctor)
    app.command("stream", rich_help_panel="Operations")(stream.stream)
    app.command("audit", rich_help_panel="Operations")(audit.audit)
    app.command("rebuild", rich_help_panel="Operations")(rebuild.rebuild)
    app.command("dead-letters", rich_help_panel="Operations")(dead_letters.dead_letters)
    app.command("redrive", rich_help_panel="Operations")(dead_letters.redrive)
    app.add_typer(edge.app, name="edge", rich_help_panel="Operations")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imaging {version('imaging-ingestion')}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 something failed, 2 wrong settings or usage."""
    try:
        build(sys.argv[1:])()
        code = 0
    except SystemExit as ended:  # typer's own way out
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except ImagingError as error:
        typer.echo(f"imaging: {error}", err=True)
        code = 2 if isinstance(error, SettingsError) else 1
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process without tearing the interpreter down.

    obstore's threads outlive their last call by a moment; one that wants the interpreter while it is torn down aborts
    the process (pyo3-async-runtimes issue 40), and a command that did its work would seem to have failed.
    """
    logging.shutdown()
    with contextlib.suppress(BrokenPipeError):  # as in: imaging dead-letters | head
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
