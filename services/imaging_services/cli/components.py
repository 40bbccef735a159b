"""``imaging run``: one service, configured by environment variables and mounted files alone."""

import importlib
import os
from pathlib import Path
from typing import Annotated

import typer

from imaging_services import runtime
from imaging_services.cli.env_file import use_env_file
from imaging_services.domain.errors import SettingsError

COMPONENTS = {
    "dimse-proxy": "dimse_proxy",
    "dimse-ingestion": "dimse_ingestion",
    "dicomweb-ingestion": "dicomweb_ingestion",
    "event-driven-ingestion": "event_driven_ingestion",
    "instance-binding": "instance_binding",
    "study-binding": "study_binding",
    "event-bridge": "event_bridge",
}
# One half of the DICOMweb service, as the specification's two workloads run it.
ROLES = {"stow": "stow", "wado": "wado"}


def run_component(
    component: Annotated[
        str, typer.Argument(metavar="COMPONENT", help=f"One of {', '.join([*COMPONENTS, *ROLES])}.", show_default=False)
    ],
    env_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read NAME=value lines; variables of the environment win.", show_default=False
        ),
    ] = None,
    edge: Annotated[
        bool,
        typer.Option("--edge", help="dimse-proxy: with an own NATS server and a spool, as leaf node of the hub's."),
    ] = False,
) -> None:
    """Run one service until SIGTERM or Ctrl-C.

    It is configured by the variables and mounted files of docs/settings.md, the same as in a pod.
    """
    if env_file is not None:
        use_env_file(env_file)
    if edge:
        _run_edge(component)
        return
    if component in ROLES:
        os.environ.setdefault("DICOMWEB_ROLE", ROLES[component])
        component = "dicomweb-ingestion"
    if component not in COMPONENTS:
        raise SettingsError(f"there is no component '{component}': use one of {', '.join([*COMPONENTS, *ROLES])}")
    package = f"imaging_services.apps.{COMPONENTS[component]}"
    settings = runtime.load_settings(importlib.import_module(f"{package}.settings").Settings)
    if getattr(settings, "EDGE", False):
        _run_edge(component)
        return
    if getattr(settings, "WORKERS", 1) > 1:
        from imaging_services import workers  # a worker does without what its parent needs

        raise typer.Exit(workers.run(component, settings))
    runtime.run(importlib.import_module(f"{package}.main").main, settings)


def _run_edge(component: str) -> None:
    """The proxy with its NATS server. Imported here: a service would carry the supervisor in memory."""
    from imaging_services.apps.dimse_proxy.settings import Settings
    from imaging_services.local import edge

    if component != "dimse-proxy":
        raise SettingsError(f"{component} has no edge form: use imaging run dimse-proxy --edge")
    os.environ["EDGE"] = "true"
    edge.run(runtime.load_settings(Settings))
