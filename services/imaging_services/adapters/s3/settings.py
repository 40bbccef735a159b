"""Settings of a storage space, read from the files of two mounted directories.

The ConfigMap's keys lie in ``BUCKET_CONFIG_PATH``, the Secret's in ``BUCKET_SECRET_PATH``; each key is a file. What an
ObjectBucketClaim produces can be mounted as it is.
"""

import base64
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from imaging_services.domain.errors import SettingsError

log = structlog.get_logger(__name__)

DEFAULT_REGION = "us-east-1"
_AMAZON = ".amazonaws.com"
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class BucketSettings(BaseModel):
    """The keys of a storage space. ``BUCKET_HOST`` makes it S3, ``AZURE_STORAGE_CONNECTION_STRING`` Azure Blob and
    ``LOCAL_STORAGE_PATH`` a local folder; exactly one of them must be there, there is no silent default."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    BUCKET_HOST: str | None = Field(default=None, description="S3 host, with or without http:// or https://")
    BUCKET_PORT: int | None = Field(
        default=None, ge=1, le=65535, description="S3 port; without a scheme in the host, 80 means http, others https"
    )
    BUCKET_REGION: str = Field(default=DEFAULT_REGION, description="S3 region for the signature")
    BUCKET_SUBREGION: str | None = Field(default=None, description="part of ObjectBucketClaims; has no effect")
    BUCKET_NAME: str | None = Field(default=None, description="S3 bucket; events report it")
    BUCKET_ADDRESSING_STYLE: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="where the bucket's name goes: path, or virtual (host name); auto is virtual for Amazon, else path",
    )
    BUCKET_CA_FILE: Path | None = Field(
        default=None, description="PEM file of authorities to trust besides the system's, for S3 and Azure"
    )
    BUCKET_SKIP_VERIFY: bool = Field(default=False, description="do not verify the server's certificate; not for use")
    AWS_ACCESS_KEY_ID: str | None = Field(default=None, description="S3 access key (Secret)")
    AWS_SECRET_ACCESS_KEY: SecretStr | None = Field(default=None, description="S3 secret key (Secret)")
    AZURE_STORAGE_CONNECTION_STRING: str | None = Field(
        default=None, description="in spite of its name the URL of the blob endpoint, https://<account>.blob..."
    )
    AZURE_CONTAINER_NAME: str | None = Field(default=None, description="Azure container")
    AZURE_STORAGE_ACCOUNT_NAME: str | None = Field(default=None, description="Azure account (Secret)")
    AZURE_STORAGE_ACCOUNT_KEY: SecretStr | None = Field(default=None, description="Azure shared key (Secret)")
    LOCAL_STORAGE_PATH: Path | None = Field(default=None, description="local folder, one file an object")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        present = [key for key in _PROVIDERS if getattr(self, key) is not None]
        if not present:
            raise ValueError(f"no storage space: set one of {', '.join(_PROVIDERS)}")
        # As in the specification's order, S3 before Azure; a folder beside either is a mistake that hides data.
        if "LOCAL_STORAGE_PATH" in present and len(present) > 1:
            raise ValueError(f"{present[0]} and LOCAL_STORAGE_PATH exclude each other")
        missing = [key for key in _PROVIDERS[present[0]] if getattr(self, key) is None]
        if missing:
            raise ValueError(f"{present[0]} needs {', '.join(missing)}")
        if (self.AWS_ACCESS_KEY_ID is None) != (self.AWS_SECRET_ACCESS_KEY is None):
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together")
        return self

    @model_validator(mode="after")
    def _azure_usable(self) -> Self:
        endpoint, key = self.AZURE_STORAGE_CONNECTION_STRING, self.AZURE_STORAGE_ACCOUNT_KEY
        if self.provider != "azure" or endpoint is None or key is None:
            return self
        if not endpoint.startswith(("http://", "https://")) or not urlsplit(endpoint).hostname:
            raise ValueError(
                "AZURE_STORAGE_CONNECTION_STRING is, in spite of its name, the blob service's URL, such as"
                " https://<account>.blob.core.windows.net; what else a connection string holds belongs into"
                " AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
            )
        try:
            base64.b64decode(key.get_secret_value(), validate=True)
        except ValueError:
            raise ValueError("AZURE_STORAGE_ACCOUNT_KEY is not base64: copy the account's access key") from None
        return self

    @property
    def provider(self) -> Literal["s3", "azure", "folder"]:
        """Which kind of storage space this is."""
        if self.BUCKET_HOST is not None:
            return "s3"
        return "azure" if self.AZURE_STORAGE_CONNECTION_STRING is not None else "folder"

    @property
    def is_tamper_proof(self) -> bool:
        """Nobody can change what is sent to the endpoint: TLS with a verified certificate, or this machine.

        An S3 signature then need not cover the SHA-256 of the body, a third of what an upload costs.
        """
        url = urlsplit(self.endpoint)
        if url.scheme == "https":
            return not self.BUCKET_SKIP_VERIFY
        return url.hostname in _LOOPBACK

    @property
    def endpoint(self) -> str:
        """Base URL of the S3 service, without the bucket's name."""
        scheme, host, port = self._address
        standard = {"http": 80, "https": 443}[scheme]
        return f"{scheme}://{host}" + ("" if port in (None, standard) else f":{port}")

    @property
    def virtual_hosted(self) -> bool:
        """True when the bucket's name is part of the host name."""
        if self.BUCKET_ADDRESSING_STYLE == "auto":
            return self._address[1].endswith(_AMAZON) and "." not in (self.BUCKET_NAME or "")
        return self.BUCKET_ADDRESSING_STYLE == "virtual"

    @property
    def _address(self) -> tuple[str, str, int | None]:
        text = self.BUCKET_HOST or ""
        url = urlsplit(text if "://" in text else f"//{text}")
        port = self.BUCKET_PORT or url.port
        scheme = url.scheme or ("http" if port == 80 else "https")
        host = url.hostname or ""
        return scheme, f"[{host}]" if ":" in host else host, port

    def ca_certificates(self) -> bytes | None:
        """The PEM text of ``BUCKET_CA_FILE``. Raises ``SettingsError`` when it cannot be read."""
        if self.BUCKET_CA_FILE is None:
            return None
        try:
            return self.BUCKET_CA_FILE.read_bytes()
        except OSError as error:
            raise SettingsError(f"BUCKET_CA_FILE {self.BUCKET_CA_FILE} cannot be read: {error.strerror}") from None


_PROVIDERS = {
    "BUCKET_HOST": ("BUCKET_NAME",),
    "AZURE_STORAGE_CONNECTION_STRING": (
        "AZURE_CONTAINER_NAME",
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
    ),
    "LOCAL_STORAGE_PATH": (),
}


def read_bucket_settings(config_path: Path, secret_path: Path | None = None) -> BucketSettings:
    """Read the keys of both directories. Raises ``SettingsError`` with a sentence that names what is wrong."""
    values = _read_directory("BUCKET_CONFIG_PATH", config_path)
    if secret_path is not None and (secret_path.exists() or "LOCAL_STORAGE_PATH" not in values):
        values |= _read_directory("BUCKET_SECRET_PATH", secret_path)
    unknown = sorted(values.keys() - BucketSettings.model_fields.keys())
    if unknown:
        log.warning("unknown storage space keys have no effect", keys=unknown)
    try:
        return BucketSettings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            ": ".join([*map(str, item["loc"]), item["msg"].removeprefix("Value error, ")]) for item in error.errors()
        )
        raise SettingsError(f"storage space in {config_path}: {problems}") from None


def _read_directory(variable: str, directory: Path) -> dict[str, str]:
    """File name → trimmed content; empty files count as absent, and what Kubernetes hides (``..data``) is not a key."""
    if not directory.is_dir():
        raise SettingsError(f"{variable}: {directory} is not a directory")
    values = {}
    for path in directory.iterdir():
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            text = path.read_text("utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise SettingsError(f"{variable}: {path} cannot be read: {error}") from None
        if text:
            values[path.name] = text
    return values
