"""Settings of the operator; field names are the environment's variables."""

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class OperatorSettings(BaseSettings):
    """What the operator needs to know beside the custom resources."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    IMAGE: str = Field(
        default="imaging-ingestion:0.1.0",
        min_length=1,
        description="container image of every component whose resource names none",
    )
    WATCH_NAMESPACE: str = Field(
        default="", description="namespaces to watch, separated by commas; empty watches the whole cluster"
    )
    API_TIMEOUT_SECONDS: float = Field(default=30, gt=0, description="wait for an answer of the API server, seconds")
    RETRY_SECONDS: float = Field(
        default=5, gt=0, description="wait before a failed reconciliation is tried again, seconds"
    )
    RESYNC_SECONDS: float = Field(
        default=300, gt=0, description="every resource is reconciled at least this often, seconds; repairs drift"
    )

    @field_validator("WATCH_NAMESPACE")
    @classmethod
    def _names(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        if any(names) and not all(names):
            raise ValueError("an empty name between commas: write a,b")
        return ",".join(names)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces to watch; empty means all."""
        return tuple(filter(None, self.WATCH_NAMESPACE.split(",")))
