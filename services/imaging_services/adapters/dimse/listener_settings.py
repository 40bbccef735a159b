"""Environment variables of the DIMSE processes that do not concern NATS: own AE, target AE, limits (mix-in)."""

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr

from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.relay.admission import Admission, titles

_DEFAULTS = AssociationLimits()


class ListenerVariables(BaseModel):
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
        description="directory of IMAGE_CUIDS and IMAGE_TSUIDS; the default lists are used when it lacks either",
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
    DIMSE_TLS_ENABLED: bool = Field(default=False, description="TLS on the listening side; not available yet")
    DIMSE_TLS_KEYSTORE: Path = Field(
        default=Path("/etc/config/certs/keystore.pkcs12"), description="key and certificate of the listening side"
    )
    DIMSE_TLS_KEYSTORE_TYPE: str = Field(default="PKCS12", description="PKCS12 or JKS")
    DIMSE_TLS_KEYSTORE_PASSWORD: SecretStr = Field(default=SecretStr("secret"), description="its password")
    DIMSE_TLS_TRUSTSTORE: Path = Field(
        default=Path("/etc/config/certs/truststore.pkcs12"), description="authorities of client certificates"
    )
    DIMSE_TLS_TRUSTSTORE_TYPE: str = Field(default="PKCS12", description="PKCS12 or JKS")
    DIMSE_TLS_TRUSTSTORE_PASSWORD: SecretStr = Field(default=SecretStr("secret"), description="its password")
    DIMSE_TLS_PROTOCOL_VERSIONS: str = Field(default="TLSv1.2", description="versions, separated by commas")
    DIMSE_TLS_CIPHER_SUITES: str = Field(
        default="TLS_RSA_WITH_AES_128_CBC_SHA,SSL_RSA_WITH_3DES_EDE_CBC_SHA",
        description="suites by their Java names, separated by commas",
    )

    def limits(self) -> AssociationLimits:
        """Limits of associations in both directions."""
        return AssociationLimits(
            max_associations=self.DIMSE_MAX_ASSOCIATIONS,
            max_pdu_length=self.DIMSE_MAX_PDU_LENGTH,
            artim_timeout_seconds=self.DIMSE_ARTIM_TIMEOUT_SECONDS,
            idle_timeout_seconds=self.DIMSE_IDLE_TIMEOUT_SECONDS,
            dimse_timeout_seconds=self.DIMSE_RESPONSE_TIMEOUT_SECONDS,
            connect_timeout_seconds=self.DIMSE_CONNECT_TIMEOUT_SECONDS,
        )

    def admission(self) -> Admission:
        """Who may open an association. Called by the target's title, this AE answers too."""
        own = {self.DIMSE_AE.strip(), (self.DIMSE_TARGET_AE or self.DIMSE_AE).strip()}
        return Admission(frozenset(own), titles(self.DIMSE_ALLOWED_CALLING_AE), self.DIMSE_CHECK_CALLED_AE)

    def refuse_tls(self) -> None:
        """Raise ``SettingsError`` when TLS is asked for: running without it would be worse than not running."""
        if self.DIMSE_TLS_ENABLED:
            raise SettingsError(
                "DIMSE_TLS_ENABLED=true: this version has no TLS on its DICOM port; set it to false and put the port "
                "behind a TLS tunnel"
            )
