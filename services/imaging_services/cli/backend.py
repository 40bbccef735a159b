"""``imaging backend``: one server of the local stack in the foreground, for trials on Kubernetes."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from imaging_services import runtime
from imaging_services.local import backend as backends


class Server(StrEnum):
    """The servers that come as wheels."""

    nats = "nats"
    postgres = "postgres"
    s3 = "s3"


# The settings of each, and how to run it with them.
SERVERS: dict[Server, tuple[type[backends.BackendSettings], Any]] = {
    Server.nats: (backends.NatsBackendSettings, backends.nats_backend),
    Server.postgres: (backends.PostgresBackendSettings, backends.postgres_backend),
    Server.s3: (backends.S3BackendSettings, backends.s3_backend),
}


def backend(server: Annotated[Server, typer.Argument(help="Which server.", show_default=False)]) -> None:
    """Run one server until SIGTERM or Ctrl-C: NATS, PostgreSQL or S3, as 'imaging up' does.

    For trials: one process, no replication, no TLS. It is configured by the variables of docs/settings.md.
    """
    settings_class, make = SERVERS[server]
    settings = runtime.load_settings(settings_class)

    async def main(_settings: backends.BackendSettings, lifecycle: runtime.Lifecycle) -> None:
        await backends.serve(make(settings), lifecycle)

    runtime.run(main, settings)
