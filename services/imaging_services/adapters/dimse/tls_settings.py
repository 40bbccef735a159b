"""Environment variables of TLS on associations, on the listening side and towards AEs that are called (mix-ins)."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr

from imaging_services.adapters.dimse.tls import TlsContext, client_context, server_context
from imaging_services.adapters.dimse.tls_files import Stored
from imaging_services.domain.errors import SettingsError

_TYPES = ("PKCS12", "PEM")


class ListenerTlsVariables(BaseModel):
    """TLS of a listener: mix into ``Settings``. Files are read again when they change."""

    DIMSE_TLS_ENABLED: bool = Field(
        default=False, description="TLS on the listening side, nothing but TLS on its port (PS3.15 BCP 195 profiles)"
    )
    DIMSE_TLS_CERT_FILE: Path | None = Field(
        default=None, description="PEM certificate of the listening side with its chain; used instead of the keystore"
    )
    DIMSE_TLS_KEY_FILE: Path | None = Field(default=None, description="PEM key of that certificate")
    DIMSE_TLS_CA_FILE: Path | None = Field(
        default=None, description="PEM authorities of client certificates; used instead of the truststore"
    )
    DIMSE_TLS_CLIENT_AUTH: Literal["required", "none"] = Field(
        default="required", description="whether clients have to show a certificate of those authorities (mutual TLS)"
    )
    DIMSE_TLS_KEYSTORE: Path = Field(
        default=Path("/etc/config/certs/keystore.pkcs12"), description="key and certificate of the listening side"
    )
    DIMSE_TLS_KEYSTORE_TYPE: str = Field(default="PKCS12", description="PKCS12 or PEM")
    DIMSE_TLS_KEYSTORE_PASSWORD: SecretStr = Field(
        default=SecretStr("secret"), description="its password, or that of an encrypted PEM key"
    )
    DIMSE_TLS_KEYSTORE_PASSWORD_FILE: Path | None = Field(default=None, description="file that holds its password")
    DIMSE_TLS_TRUSTSTORE: Path = Field(
        default=Path("/etc/config/certs/truststore.pkcs12"), description="authorities of client certificates"
    )
    DIMSE_TLS_TRUSTSTORE_TYPE: str = Field(default="PKCS12", description="PKCS12 or PEM")
    DIMSE_TLS_TRUSTSTORE_PASSWORD: SecretStr = Field(default=SecretStr("secret"), description="its password")
    DIMSE_TLS_TRUSTSTORE_PASSWORD_FILE: Path | None = Field(default=None, description="file that holds its password")
    DIMSE_TLS_PROTOCOL_VERSIONS: str = Field(
        default="TLSv1.2,TLSv1.3", description="versions, separated by commas; older ones are refused"
    )
    DIMSE_TLS_CIPHER_SUITES: str = Field(
        default="",
        description="suites of TLS 1.2 by their Java (IANA) names, separated by commas; empty: ECDHE with AES-GCM or "
        "ChaCha20; weaker ones are refused",
    )

    def listener_tls(self) -> TlsContext | None:
        """None when TLS is off. Raises ``SettingsError`` for whatever keeps it from working."""
        if not self.DIMSE_TLS_ENABLED:
            return None
        for name in ("DIMSE_TLS_KEYSTORE_TYPE", "DIMSE_TLS_TRUSTSTORE_TYPE"):
            if getattr(self, name) not in _TYPES:
                raise SettingsError(
                    f"{name}={getattr(self, name)}: this version reads PKCS12 and PEM; keytool -importkeystore "
                    "-deststoretype PKCS12 makes a PKCS12 of a JKS"
                )
        authorities = self._authorities() if self.DIMSE_TLS_CLIENT_AUTH == "required" else None
        return server_context(
            self._own(), authorities, _names(self.DIMSE_TLS_PROTOCOL_VERSIONS), _names(self.DIMSE_TLS_CIPHER_SUITES)
        )

    def _own(self) -> Stored:
        password = (self.DIMSE_TLS_KEYSTORE_PASSWORD, self.DIMSE_TLS_KEYSTORE_PASSWORD_FILE)
        if self.DIMSE_TLS_CERT_FILE:
            return Stored("DIMSE_TLS_CERT_FILE", self.DIMSE_TLS_CERT_FILE, self.DIMSE_TLS_KEY_FILE, *password)
        return Stored("DIMSE_TLS_KEYSTORE", self.DIMSE_TLS_KEYSTORE, None, *password)

    def _authorities(self) -> Stored:
        if self.DIMSE_TLS_CA_FILE:
            return Stored("DIMSE_TLS_CA_FILE", self.DIMSE_TLS_CA_FILE)
        return Stored(
            "DIMSE_TLS_TRUSTSTORE",
            self.DIMSE_TLS_TRUSTSTORE,
            password=self.DIMSE_TLS_TRUSTSTORE_PASSWORD,
            password_file=self.DIMSE_TLS_TRUSTSTORE_PASSWORD_FILE,
        )


class TargetTlsVariables(BaseModel):
    """TLS towards AEs that are called: mix into ``Settings``. Files are read again when they change."""

    DIMSE_TARGET_TLS_ENABLED: bool = Field(
        default=False, description="TLS towards the target AE; its certificate is verified"
    )
    DIMSE_TARGET_TLS_CA_FILE: Path | None = Field(
        default=None, description="PEM or PKCS12 file of the authorities to trust instead of the system's"
    )
    DIMSE_TARGET_TLS_VERIFY: Literal["full", "ca"] = Field(
        default="full",
        description="full: the certificate has to name the host that is called; ca: any certificate of the authorities",
    )
    DIMSE_TARGET_TLS_CERT_FILE: Path | None = Field(
        default=None, description="PEM certificate, or PKCS12 with its key, for AEs that ask for one (mutual TLS)"
    )
    DIMSE_TARGET_TLS_KEY_FILE: Path | None = Field(default=None, description="PEM key of that certificate")
    DIMSE_TARGET_TLS_PASSWORD: SecretStr | None = Field(default=None, description="password of these files")
    DIMSE_TARGET_TLS_PASSWORD_FILE: Path | None = Field(default=None, description="file that holds that password")

    def target_tls(self) -> TlsContext | None:
        """Towards the target; None when TLS is off. Raises ``SettingsError``."""
        return self.client_tls() if self.DIMSE_TARGET_TLS_ENABLED else None

    def client_tls(self) -> TlsContext:
        """Towards any AE that wants TLS. Raises ``SettingsError``."""
        own = self._stored("DIMSE_TARGET_TLS_CERT_FILE", self.DIMSE_TARGET_TLS_KEY_FILE)
        authorities = self._stored("DIMSE_TARGET_TLS_CA_FILE", None)
        if authorities is None and self.DIMSE_TARGET_TLS_VERIFY == "ca":
            raise SettingsError("DIMSE_TARGET_TLS_VERIFY=ca: DIMSE_TARGET_TLS_CA_FILE has to name the authorities")
        return client_context(own, authorities, check_host=self.DIMSE_TARGET_TLS_VERIFY == "full")

    def _stored(self, setting: str, key: Path | None) -> Stored | None:
        path = getattr(self, setting)
        if path is None:
            return None
        return Stored(setting, path, key, self.DIMSE_TARGET_TLS_PASSWORD, self.DIMSE_TARGET_TLS_PASSWORD_FILE)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
