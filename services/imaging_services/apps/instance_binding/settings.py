"""Settings of the instance binding."""

from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from imaging_services.adapters.dimse.tls_settings import TargetTlsVariables
from imaging_services.subscription import SubscriptionSettings, exactly_one, require_url


class Settings(TargetTlsVariables, SubscriptionSettings):
    """Where instances go: STOW_ENDPOINT, DIMSE_TARGET_HOST or WEBHOOK_ENDPOINT."""

    STOW_ENDPOINT: str = Field(default="", description="full URL of the remote studies resource (STOW-RS)")
    STOW_AUTH_TOKEN: SecretStr = Field(
        default=SecretStr(""),
        description="sent verbatim as Authorization, so it includes 'Bearer '; empty: no such header",
    )
    DIMSE_TARGET_HOST: str = Field(default="", description="host of the AE that stores (C-STORE)")
    DIMSE_TARGET_PORT: int = Field(default=11112, ge=1, le=65535, description="its port")
    DIMSE_TARGET_AE: str = Field(default="DIMSE", min_length=1, max_length=16, description="called AE title")
    DIMSE_AE: str = Field(default="STORESCU", min_length=1, max_length=16, description="calling AE title")
    DIMSE_MAX_ASSOCIATIONS: int = Field(
        default=4, ge=1, le=64, description="associations kept open to the AE at a time, at most"
    )
    DIMSE_IDLE_SECONDS: float = Field(
        default=30, gt=0, description="an association without work is released after this time, seconds"
    )
    WADO_AUTH_TOKEN: SecretStr = Field(
        default=SecretStr(""),
        description="sent verbatim as Authorization when an instance is fetched; empty: no such header",
    )
    SPOOL_DIR: Path | None = Field(
        default=None, description="directory for instances above 8 MiB on their way; default: the system's"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _ = self.mode
        _ = self.target_tls()
        for name in ("STOW_ENDPOINT", "WEBHOOK_ENDPOINT"):
            require_url(name, getattr(self, name))
        return self

    @cached_property
    def mode(self) -> str:
        """The setting that names the target. Raises ``SettingsError``."""
        targets = {
            "STOW_ENDPOINT": self.STOW_ENDPOINT,
            "DIMSE_TARGET_HOST": self.DIMSE_TARGET_HOST,
            "WEBHOOK_ENDPOINT": self.WEBHOOK_ENDPOINT,
        }
        return exactly_one(targets, "target of instances")

    @property
    def target(self) -> str:
        """The target's address, for names and logs."""
        if self.mode == "DIMSE_TARGET_HOST":
            return f"dimse://{self.DIMSE_TARGET_AE}@{self.DIMSE_TARGET_HOST}:{self.DIMSE_TARGET_PORT}"
        return self.STOW_ENDPOINT or self.WEBHOOK_ENDPOINT
