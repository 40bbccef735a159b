"""Settings of the DIMSE ingestion; the names are the environment's."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from imaging_services.adapters.cache.settings import SpaceCacheVariables
from imaging_services.adapters.dimse.listener_settings import ListenerVariables
from imaging_services.adapters.dimse.urgency_settings import UrgencyVariables
from imaging_services.adapters.nats.relay_settings import RelayVariables
from imaging_services.domain.errors import SettingsError
from imaging_services.runtime import ServiceSettings, WorkerVariables
from imaging_services.wiring.direct import RecordingVariables


class Settings(
    UrgencyVariables,
    ListenerVariables,
    RelayVariables,
    SpaceCacheVariables,
    RecordingVariables,
    WorkerVariables,
    ServiceSettings,
):
    """A DIMSE AE that writes to a storage space, fed by the relay and by direct associations."""

    # The operator sets what a resource leaves out to the empty text.
    model_config = SettingsConfigDict(env_ignore_empty=True)

    DIMSE_AE: str = Field(
        default="DIMSE_INGESTION", min_length=1, max_length=16, description="own AE title; also the Retrieve AE Title"
    )
    DIMSE_NATS_SUBJECT_CHANNEL: str = Field(default="B", description="own channel; the ingestion is always B")
    DIMSE_NATS_RECEIVE_DOMAIN: str | None = Field(
        default="*",
        description="JetStream domains that keep what is sent to the ingestion, beside the server's own: names "
        "separated by commas, or * for all that announce themselves, as proxies with a NATS server of their own do",
    )
    DIMSE_NATS_DISABLED: bool = Field(default=False, description="true: only the DICOM listener, without NATS")
    DIMSE_ASSOCIATION_LEASE_SECONDS: float = Field(
        default=60,
        gt=0,
        description="an association that has sent instances of a study holds its revision back for so long after its "
        "last sign of life, seconds",
    )
    DIMSE_MOVE_MODE: Literal["synchronous", "asynchronous"] = Field(
        default="synchronous",
        description="when a C-MOVE is answered: with the counts once its instances are sent (synchronous), or with "
        "success once it is kept, to be done afterwards (asynchronous)",
    )
    DIMSE_MOVE_HOURS: float = Field(
        default=24, gt=0, description="how long an asynchronous C-MOVE tries a destination that is away, hours"
    )
    DIMSE_RETRIEVE_TRANSCODING: bool = Field(
        default=True,
        description="offer instances uncompressed too, Explicit and Implicit VR Little Endian, to a retrieving AE that "
        "does not take them as they are stored; false: such a sub-operation fails",
    )
    DIMSE_COMMITMENT_WAIT_SECONDS: float = Field(
        default=1,
        ge=0.1,
        description="a requestor of storage commitment that has not released its association for so long gets the "
        "report over it, otherwise over a new one, seconds",
    )
    DIMSE_COMMITMENT_HOURS: float = Field(
        default=24, gt=0, description="how long a requestor of storage commitment is tried to be reached, hours"
    )
    PROVIDER_NAME: str = Field(default="", description="name of the storage space in events; as that of the WEB")
    BUCKET_CONFIG_PATH: Path = Field(
        default=Path("/etc/bucket/config"), description="directory of the storage space's ConfigMap keys"
    )
    BUCKET_SECRET_PATH: Path | None = Field(
        default=None, description="directory of the storage space's Secret keys; default: the ConfigMap's"
    )
    WADO_INTERNAL_ENDPOINT: str | None = Field(
        default=None, description="base URL of WADO-RS inside the cluster, for events"
    )
    WADO_EXTERNAL_ENDPOINT: str | None = Field(default=None, description="base URL of WADO-RS from outside, for events")
    QUERY_ENDPOINT: str | None = Field(
        default=None, description="query API of the event processor; used when DB_HOST is not set"
    )
    EVENT_SOURCE: str = Field(default="dimse-ingestion", description="source of the events")
    SPOOL_DIR: Path | None = Field(
        default=None, description="where instances above 8 MiB wait until they are stored; default TMPDIR"
    )

    def check(self) -> None:
        """Raise ``SettingsError`` for what is missing or cannot work together."""
        self.listener_tls()
        self.client_tls()
        self.users()
        if not self.PROVIDER_NAME:
            raise SettingsError("PROVIDER_NAME is not set: name the storage space as its DICOMweb service does")
        if self.DIMSE_NATS_SUBJECT_CHANNEL != "B" and not self.DIMSE_NATS_DISABLED:
            raise SettingsError("DIMSE_NATS_SUBJECT_CHANNEL: the ingestion always listens on B")
