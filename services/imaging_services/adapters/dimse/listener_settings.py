"""Environment variables of the DIMSE processes that do not concern NATS: own AE, target AE, limits (mix-in)."""

from pathlib import Path

from pydantic import Field

from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.tls_settings import ListenerTlsVariables, TargetTlsVariables
from imaging_services.adapters.dimse.users import Users
from imaging_services.domain.relay.admission import Admission, titles

_DEFAULTS = AssociationLimits()


class ListenerVariables(ListenerTlsVariables, TargetTlsVariables):
    """The variables shared by the proxy and the ingestion: mix into an app's ``Settings``."""

    DIMSE_HOST: str = Field(default="0.0.0.0", description="address the AE listens on")  # noqa: S104 - as specified
    DIMSE_PORT: int = Field(default=11112, ge=0, le=65535, description="port the AE listens on; 0 takes any free one")
    DIMSE_AE: str = Field(
        default="DIMSE", min_length=1, max_length=16, description="own AE title; also the calling AE towards the target"
    )
    DIMSE_DEVICE: str | None = Field(default=None, description="device name, shown in logs; default DIMSE_AE")
    DIMSE_TARGET_HOST: str | None = Field(default=None, description="host of the AE that requests are delivered to")
    DIMSE_TARGET_PORT: int = Field(default=0, ge=0, le=65535, description="its port")
    DIMSE_TARGET_AE: str | None = Field(default=None, max_length=16, description="its AE title")
    DIMSE_TARGET_DEVICE: str | None = Field(default=None, description="its device name, shown in logs")
    DIMSE_CONFIG_PATH: Path | None = Field(
        default=Path("/etc/config/dimse"),
        description="directory of IMAGE_CUIDS and IMAGE_TSUIDS; the default lists are used when it lacks either; for "
        "the ingestion also of KNOWN_AES, the AEs that it sends to",
    )
    DIMSE_CHECK_CALLED_AE: bool = Field(
        default=True, description="reject associations that call another AE title than DIMSE_AE or DIMSE_TARGET_AE"
    )
    DIMSE_ALLOWED_CALLING_AE: str = Field(
        default="", description="calling AE titles let in, separated by commas; empty lets all in"
    )
    DIMSE_ACCEPT_UNKNOWN_SOP_CLASSES: bool = Field(
        default=False, description="accept private and unlisted storage SOP classes too"
    )
    DIMSE_MAX_ASSOCIATIONS: int = Field(
        default=_DEFAULTS.max_associations, ge=1, description="associations at a time; more are rejected for now"
    )
    DIMSE_MAX_PDU_LENGTH: int = Field(
        default=_DEFAULTS.max_pdu_length, ge=4096, le=16777216, description="longest PDU that peers may send, bytes"
    )
    DIMSE_IDLE_TIMEOUT_SECONDS: float = Field(
        default=_DEFAULTS.idle_timeout_seconds,
        gt=0,
        description="an association without a request for so long is aborted, seconds",
    )
    DIMSE_ARTIM_TIMEOUT_SECONDS: float = Field(
        default=_DEFAULTS.artim_timeout_seconds,
        gt=0,
        description="wait for an association request or a peer's closing (ARTIM), seconds",
    )
    DIMSE_RESPONSE_TIMEOUT_SECONDS: float = Field(
        default=_DEFAULTS.dimse_timeout_seconds,
        gt=0,
        description="wait for the target's response, or for the rest of a message, seconds",
    )
    DIMSE_CONNECT_TIMEOUT_SECONDS: float = Field(
        default=_DEFAULTS.connect_timeout_seconds, gt=0, description="wait for a connection to the target, seconds"
    )
    DIMSE_TARGET_ASSOCIATIONS: int = Field(
        default=4, ge=1, description="associations to the target over which instances are delivered"
    )
    DIMSE_MAX_OPERATIONS: int = Field(
        default=_DEFAULTS.max_operations,
        ge=1,
        le=256,
        description="operations of one association at a time, where a peer negotiates several",
    )
    DIMSE_USERS_FILE: Path | None = Field(
        default=None,
        description="file of name:passcode lines; every requestor then has to identify itself as one of these users",
    )

    def limits(self) -> AssociationLimits:
        """Limits of associations in both directions."""
        return AssociationLimits(
            max_associations=self.DIMSE_MAX_ASSOCIATIONS,
            max_pdu_length=self.DIMSE_MAX_PDU_LENGTH,
            max_operations=self.DIMSE_MAX_OPERATIONS,
            artim_timeout_seconds=self.DIMSE_ARTIM_TIMEOUT_SECONDS,
            idle_timeout_seconds=self.DIMSE_IDLE_TIMEOUT_SECONDS,
            dimse_timeout_seconds=self.DIMSE_RESPONSE_TIMEOUT_SECONDS,
            connect_timeout_seconds=self.DIMSE_CONNECT_TIMEOUT_SECONDS,
        )

    def admission(self) -> Admission:
        """Who may open an association. Called by the target's title, this AE answers too."""
        own = {self.DIMSE_AE.strip(), (self.DIMSE_TARGET_AE or self.DIMSE_AE).strip()}
        return Admission(frozenset(own), titles(self.DIMSE_ALLOWED_CALLING_AE), self.DIMSE_CHECK_CALLED_AE)

    def users(self) -> Users | None:
        """Who may open an association by user name; None when nobody has to say. Raises ``SettingsError``."""
        return Users(self.DIMSE_USERS_FILE) if self.DIMSE_USERS_FILE else None
