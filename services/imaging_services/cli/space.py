"""What ``imaging audit`` and ``imaging rebuild`` work on: one storage space and the manifest."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated

import typer

from imaging_services.adapters.postgres.settings import PostgresSettings
from imaging_services.cli.env_file import use_env_file
from imaging_services.cli.target import TargetSettings, load_target
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.ingest.announcement import Provenance
from imaging_services.domain.ports import ObjectStore
from imaging_services.wiring.archive import open_space

EnvFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Read NAME=value lines, as the services do.", show_default=False),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write one JSON object a line, the last is the summary."),
]


def load_space(data_dir: Path | None, env_file: Path | None) -> TargetSettings:
    """The settings of one storage space and the manifest. Raises ``SettingsError``."""
    if env_file is not None:
        use_env_file(env_file)
    return load_target(data_dir)[0]


def open_target_space(settings: TargetSettings) -> AbstractAsyncContextManager[ObjectStore]:
    """The storage space. Raises ``SettingsError`` that says what is missing."""
    if settings.BUCKET_CONFIG_PATH is None:
        raise SettingsError(
            "which storage space? give --data-dir, or set BUCKET_CONFIG_PATH, PROVIDER_NAME and the DB_ variables"
        )
    return open_space(settings.BUCKET_CONFIG_PATH, settings.BUCKET_SECRET_PATH)


def database_of(settings: TargetSettings, name: str) -> PostgresSettings:
    """The manifest's database. Raises ``SettingsError`` when it is not set."""
    database = settings.postgres(name)
    if database is None:
        raise SettingsError("which manifest? set DB_HOST and the other DB_ variables")
    return database


def provenance_of(settings: TargetSettings, space: ObjectStore) -> Provenance:
    """What events of the space say of it."""
    return Provenance(
        provider=settings.PROVIDER_NAME,
        source=settings.EVENT_SOURCE,
        bucket_name=space.bucket_name,
        wado_internal=settings.WADO_INTERNAL_ENDPOINT,
        wado_external=settings.WADO_EXTERNAL_ENDPOINT,
    )
