"""Which installation a command works on: the environment's variables, or a local stack's data folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from imaging_services.adapters.nats.settings import EventLogSettings, NatsSettings
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


class TargetSettings(ServiceSettings, EventLogSettings, DatabaseVariables):
    """Every backend that a command may reach; those that are not set are left alone."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    DIMSE_NATS_URL: str | None = Field(default=None, description="NATS server of the DIMSE relay")
    DIMSE_NATS_TLS_ENABLED: bool = Field(default=False, description="TLS towards it; certificates are verified")
    DIMSE_NATS_TLS_CA_FILE: Path | None = Field(default=None, description="PEM file of the authorities to trust")
    DIMSE_NATS_TLS_CERT_FILE: Path | None = Field(default=None, description="PEM client certificate")
    DIMSE_NATS_TLS_KEY_FILE: Path | None = Field(default=None, description="PEM key of the client certificate")
    DIMSE_NATS_AUTH_TOKEN: SecretStr | None = Field(default=None, description="JWT: sent as password")
    DIMSE_NATS_SUBJECT_ROOT: str = Field(default="DIMSE", description="first token of the relay's subjects")
    BUCKET_CONFIG_PATH: Path | None = Field(default=None, description="directory of the storage space's ConfigMap")
    BUCKET_SECRET_PATH: Path | None = Field(default=None, description="directory of the storage space's Secret")
    NATS_URL: str | None = Field(default=None, description="NATS server that the event bridges share")
    NATS_TLS_ENABLED: bool = Field(default=False, description="TLS towards it; certificates are verified")
    NATS_TLS_CA_FILE: Path | None = Field(default=None, description="PEM file of the authorities to trust")
    NATS_TLS_CERT_FILE: Path | None = Field(default=None, description="PEM client certificate")
    NATS_TLS_KEY_FILE: Path | None = Field(default=None, description="PEM key of the client certificate")
    NATS_AUTH_TOKEN: SecretStr | None = Field(default=None, description="JWT: sent as password")
    NATS_SUBJECT_ROOT: str = Field(default="events", description="first part of the bridge's subjects")
    QUERY_ENDPOINT: str | None = Field(default=None, description="base URL of the query API")
    WADO_INTERNAL_ENDPOINT: str | None = Field(default=None, description="base URL of WADO-RS")

    def relay_nats(self) -> NatsSettings | None:
        """The relay's connection; None when it is not set."""
        if not self.DIMSE_NATS_URL:
            return None
        return NatsSettings(
            url=self.DIMSE_NATS_URL,
            tls_enabled=self.DIMSE_NATS_TLS_ENABLED,
            tls_ca_file=self.DIMSE_NATS_TLS_CA_FILE,
            tls_cert_file=self.DIMSE_NATS_TLS_CERT_FILE,
            tls_key_file=self.DIMSE_NATS_TLS_KEY_FILE,
            auth_token=self.DIMSE_NATS_AUTH_TOKEN,
            subject_root=self.DIMSE_NATS_SUBJECT_ROOT,
            name="imaging-cli",
        )

    def bridge_nats(self) -> NatsSettings | None:
        """The connection that the event bridges share; None when it is not set."""
        if not self.NATS_URL:
            return None
        return NatsSettings(
            url=self.NATS_URL,
            tls_enabled=self.NATS_TLS_ENABLED,
            tls_ca_file=self.NATS_TLS_CA_FILE,
            tls_cert_file=self.NATS_TLS_CERT_FILE,
            tls_key_file=self.NATS_TLS_KEY_FILE,
            auth_token=self.NATS_AUTH_TOKEN,
            subject_root=self.NATS_SUBJECT_ROOT,
            name="imaging-cli",
        )


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
