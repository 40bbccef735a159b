"""Connection settings of the manifest database."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr, model_validator

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
"""How TLS is used: https://www.postgresql.org/docs/current/libpq-ssl.html, section "Protection Provided in Different
Modes"."""


class PostgresSettings(BaseModel):
    """How to reach the manifest's PostgreSQL. Where nothing is said of TLS, libpq's own variables (``PGSSLMODE``,
    ``PGSSLROOTCERT``) and defaults hold."""

    host: str = Field(description="host name or address")
    port: int = Field(default=5432, ge=1, le=65535, description="port")
    name: str = Field(description="database; may contain characters such as -")
    user: str = Field(description="role")
    password: SecretStr = Field(description="its password")
    ssl_mode: SslMode | None = Field(default=None, description="libpq's sslmode")
    ssl_root_cert: Path | None = Field(default=None, description="PEM file of the authorities to trust")
    min_size: int = Field(default=0, ge=0, description="connections kept open")
    max_size: int = Field(default=10, ge=2, description="most connections open")
    timeout_seconds: float = Field(default=30, gt=0, description="wait for a connection or a statement, seconds")
    application_name: str = Field(default="imaging", description="name shown in pg_stat_activity")


class DatabaseVariables(BaseModel):
    """The database's environment variables, for the settings class of any service that may use it (derive from both
    ``ServiceSettings`` and this); ``postgres()`` is None when ``DB_HOST`` is not set."""

    DB_HOST: str | None = Field(default=None, description="database host")
    DB_PORT: int = Field(default=5432, ge=1, le=65535, description="database port")
    DB_NAME: str | None = Field(default=None, description="database; may contain characters such as -")
    DB_KIND: Literal["postgresql", "db2"] = Field(
        default="postgresql", description="postgresql; db2 is named by the interface and refused at the start"
    )
    DB_USER: str | None = Field(default=None, description="database role")
    DB_PASS: SecretStr | None = Field(default=None, description="its password")
    DB_SSLMODE: SslMode | None = Field(
        default=None,
        description="TLS towards the database, as libpq's sslmode; verify-full when only DB_SSLROOTCERT is set, else "
        "prefer: TLS where the server offers it, unverified",
    )
    DB_SSLROOTCERT: Path | None = Field(
        default=None, description="PEM file of the authorities to trust; needed by verify-ca and verify-full"
    )
    DATASOURCE_MIN_SIZE: int = Field(default=0, ge=0, description="connections kept open, number")
    DATASOURCE_MAX_SIZE: int = Field(default=10, ge=2, description="most connections open, number")

    @model_validator(mode="after")
    def _usable(self) -> "DatabaseVariables":
        if self.DB_KIND == "db2":
            raise ValueError(
                "DB_KIND db2 is not supported: move the manifest to PostgreSQL and set DB_KIND to postgresql"
            )
        if self.DB_HOST and not (self.DB_NAME and self.DB_USER and self.DB_PASS):
            raise ValueError("DB_HOST is set, so DB_NAME, DB_USER and DB_PASS have to be set too")
        if self.DB_SSLROOTCERT is not None and not self.DB_SSLROOTCERT.is_file():
            raise ValueError(f"DB_SSLROOTCERT: {self.DB_SSLROOTCERT} is not a file")
        if self.DB_SSLROOTCERT is not None and self.DB_SSLMODE == "disable":
            raise ValueError("DB_SSLMODE is disable, so DB_SSLROOTCERT has no effect: remove one of them")
        if self.DATASOURCE_MIN_SIZE > self.DATASOURCE_MAX_SIZE:
            raise ValueError("DATASOURCE_MIN_SIZE is larger than DATASOURCE_MAX_SIZE")
        return self

    def postgres(self, application_name: str = "imaging") -> PostgresSettings | None:
        """The connection settings; None when ``DB_HOST`` is not set."""
        if not (self.DB_HOST and self.DB_NAME and self.DB_USER and self.DB_PASS):
            return None
        return PostgresSettings(
            host=self.DB_HOST,
            port=self.DB_PORT,
            name=self.DB_NAME,
            user=self.DB_USER,
            password=self.DB_PASS,
            ssl_mode=self.DB_SSLMODE or ("verify-full" if self.DB_SSLROOTCERT else None),
            ssl_root_cert=self.DB_SSLROOTCERT,
            min_size=self.DATASOURCE_MIN_SIZE,
            max_size=self.DATASOURCE_MAX_SIZE,
            application_name=application_name,
        )
