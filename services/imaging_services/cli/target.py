"""Which installation a command works on: the environment's variables, or a local stack's data folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from imaging_services.adapters.nats.settings import BridgeConnection, EventLogSettings, RelayConnection
from imaging_services.adapters.postgres.settings import DatabaseVariables
from imaging_services.domain.errors import SettingsError
from imaging_services.local.configuration import StackConfiguration
from imaging_services.local.data_folder import DataFolder
from imaging_services.runtime import ServiceSettings

DEFAULT_FOLDER = Path("imaging-data")
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Data folder of a local stack; default: the variables of the environment, else ./imaging-data.",
        show_default=False,
    ),
]


class TargetSettings(ServiceSettings, EventLogSettings, RelayConnection, BridgeConnection, DatabaseVariables):
    """Every backend that a command may reach; those that are not set are left alone."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    BUCKET_CONFIG_PATH: Path | None = Field(default=None, description="directory of the storage space's ConfigMap")
    BUCKET_SECRET_PATH: Path | None = Field(default=None, description="directory of the storage space's Secret")
    QUERY_ENDPOINT: str | None = Field(default=None, description="base URL of the query API")
    PROVIDER_NAME: str = Field(default="default", min_length=1, description="name of the storage space in events")
    WADO_INTERNAL_ENDPOINT: str | None = Field(default=None, description="base URL of WADO-RS")
    WADO_EXTERNAL_ENDPOINT: str | None = Field(default=None, description="base URL of WADO-RS from outside")
    EVENT_SOURCE: str = Field(default="imaging-cli", description="source of the events")


def load_target(data_dir: Path | None) -> tuple[TargetSettings, StackConfiguration | None]:
    """Settings of what to work on, and the local stack when it is one. Raises ``SettingsError``."""
    configured = {"EVENTS_NATS_URL", "DIMSE_NATS_URL", "NATS_URL", "DB_HOST", "BUCKET_CONFIG_PATH"} & set(os.environ)
    if data_dir is None and not configured and (DEFAULT_FOLDER / "state.json").exists():
        data_dir = DEFAULT_FOLDER
    if data_dir is None:
        return _settings({}), None
    folder = DataFolder(data_dir)
    if not (folder.path / "state.json").exists():
        raise SettingsError(f"{folder.path} is not the data folder of a local stack: start one with 'imaging up'")
    configuration = StackConfiguration(folder, folder.load(), None, ())
    environment: dict[str, str] = {}
    for program in configuration.service_programs():
        environment |= program.environment
    return _settings(environment), configuration


def _settings(given: Mapping[str, str]) -> TargetSettings:
    known = {name: value for name, value in given.items() if name in TargetSettings.model_fields}
    try:
        return TargetSettings(**known)  # type: ignore[arg-type]  # parsed like the environment's strings
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()]
        raise SettingsError("; ".join(lines)) from None
