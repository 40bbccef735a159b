"""Settings of the DICOMweb service; the names are the environment's."""

import re
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from imaging_services.adapters.cache.settings import SpaceCacheVariables
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.ingest.urgency import Urgency, codes
from imaging_services.runtime import ServiceSettings, WorkerVariables
from imaging_services.wiring.direct import RecordingVariables

_ORIGIN = re.compile(r"https?://[^/?#\s]+")


class Settings(RecordingVariables, SpaceCacheVariables, WorkerVariables, ServiceSettings):
    """STOW-RS, QIDO-RS and WADO-RS of one storage space, together or apart."""

    model_config = SettingsConfigDict(env_ignore_empty=True)
    PORT_PREFIX: ClassVar[str] = "HTTP"

    DICOMWEB_ROLE: Literal["all", "stow", "wado"] = Field(
        default="all", description="what is served: STOW-RS (stow), QIDO-RS and WADO-RS (wado), or all of it"
    )
    HTTP_HOST: str = Field(default="127.0.0.1", description="address to listen on")
    HTTP_PORT: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    HTTP_CONCURRENCY: int = Field(
        default=0, ge=0, description="requests under way at once, others get 503; 0 is no limit"
    )
    PROVIDER_NAME: str = Field(
        default="default", min_length=1, description="name of the storage space in events; scopes every query"
    )
    BUCKET_CONFIG_PATH: Path = Field(
        default=Path("/etc/bucket/config"), description="directory of the storage space's ConfigMap keys"
    )
    BUCKET_SECRET_PATH: Path | None = Field(
        default=None, description="directory of the storage space's Secret keys; default: the ConfigMap's"
    )
    WADO_INTERNAL_ENDPOINT: str | None = Field(
        default=None, description="base URL of WADO-RS inside the cluster, for events"
    )
    WADO_EXTERNAL_ENDPOINT: str | None = Field(
        default=None,
        description="base URL of WADO-RS from outside, for events and the URLs in answers; without it these begin "
        "with the address that the request came to",
    )
    QUERY_ENDPOINT: str | None = Field(
        default=None, description="query API of the event processor; used when DB_HOST is not set"
    )
    EVENT_SOURCE: str = Field(default="dicomweb-ingestion", description="source of the events")
    SPOOL_DIR: Path | None = Field(
        default=None, description="where instances above 8 MiB wait until they are stored; default TMPDIR"
    )
    MAX_STOW_SIZE: str = Field(
        default="", description="longest STOW-RS body, bytes or as 10240K, 2G; empty or 0 is no limit"
    )
    STOW_CONCURRENCY: int = Field(default=8, ge=1, description="instances of one request stored at once")
    STOW_MEMORY_BYTES: int = Field(
        default=64 * 1024 * 1024,
        ge=8 * 1024 * 1024,
        description="received instances waiting to be stored, bytes over all requests",
    )
    STOW_URGENT_MODALITIES: str = Field(
        default="",
        description="values of Modality (0008,0060), separated by commas, of instances whose events overtake others on "
        "their way to subscribers",
    )
    STOW_URGENT_PROCEDURE_PRIORITIES: str = Field(
        default="",
        description="values of Requested Procedure Priority (0040,1003), such as STAT,HIGH, that do so; also within "
        "the Request Attributes Sequence",
    )
    QUERY_DEFAULT_LIMIT: int = Field(default=1000, ge=1, description="search results without a limit parameter")
    QUERY_MAX_LIMIT: int = Field(default=5000, ge=1, description="most search results of one answer")
    WADO_READ_AHEAD: int = Field(default=8, ge=1, description="objects that one request reads at once")
    WADO_READ_AHEAD_BYTES: int = Field(
        default=64 * 1024 * 1024, ge=0, description="objects read before their turn, bytes over all requests"
    )
    WADO_METADATA_CONCURRENCY: int = Field(default=8, ge=1, description="headers decoded at once")
    WADO_METADATA_CACHE_BYTES: int = Field(
        default=32 * 1024 * 1024, ge=0, description="encoded metadata kept for the next request, bytes"
    )
    STREAMING_CACHE_BYTES: int = Field(
        default=32 * 1024 * 1024, ge=0, description="study header documents kept for the next request, bytes"
    )
    DICOMWEB_DELETE: bool = Field(
        default=False,
        description="DELETE of studies, series and instances is served, to whoever may reach the service",
    )
    HTTP_CORS_ORIGINS: str = Field(
        default="",
        description="origins whose web pages may call the service, as https://viewer.example.org, separated by commas, "
        "or *; empty: none but its own",
    )

    @property
    def cors_origins(self) -> list[str]:
        """Origins that browsers are told to let in."""
        return [origin.strip() for origin in self.HTTP_CORS_ORIGINS.split(",") if origin.strip()]

    @property
    def stores(self) -> bool:
        """True when STOW-RS is served."""
        return self.DICOMWEB_ROLE != "wado"

    @property
    def reads(self) -> bool:
        """True when QIDO-RS and WADO-RS are served."""
        return self.DICOMWEB_ROLE != "stow"

    @property
    def deletes(self) -> bool:
        """True when DELETE is served: beside what is read, and where the event processor itself says that a deletion is
        recorded, which a broker between them does not."""
        return self.DICOMWEB_DELETE and self.reads and bool(self.EVENTS_NATS_URL)

    def urgency(self) -> Urgency:
        """What makes a stored instance urgent."""
        return Urgency(
            modalities=codes(self.STOW_URGENT_MODALITIES),
            procedure_priorities=codes(self.STOW_URGENT_PROCEDURE_PRIORITIES),
        )

    def check(self) -> None:
        """Raise ``SettingsError`` for what is missing or cannot work together."""
        if self.stores and not (self.K_SINK or self.EVENTS_NATS_URL):
            raise SettingsError("no place to hand in events: set EVENTS_NATS_URL or K_SINK")
        if self.DICOMWEB_DELETE and not self.deletes:
            raise SettingsError("DICOMWEB_DELETE needs DICOMWEB_ROLE=wado or all, and EVENTS_NATS_URL")
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise SettingsError(f"HTTP_CORS_ORIGINS: {origin!r} is neither * nor as https://viewer.example.org")
        if self.QUERY_DEFAULT_LIMIT > self.QUERY_MAX_LIMIT:
            raise SettingsError("QUERY_DEFAULT_LIMIT is larger than QUERY_MAX_LIMIT")
