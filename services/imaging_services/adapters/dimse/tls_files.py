"""Certificates, keys and authorities from PEM and PKCS12 files."""

import secrets
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    pkcs12,
)
from pydantic import SecretStr

from imaging_services.domain.errors import SettingsError

_PEM = b"-----BEGIN "


@dataclass(frozen=True, slots=True)
class Stored:
    """A PEM or PKCS12 file, told apart by its content. ``setting`` names it in errors; ``key`` is the file of the key
    when that is another one (PEM); ``password_file`` counts before ``password``, as far as one is needed."""

    setting: str
    path: Path
    key: Path | None = None
    password: SecretStr | None = None
    password_file: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All that it is read from."""
        return [path for path in (self.path, self.key, self.password_file) if path is not None]

    def load_certificate(self, context: ssl.SSLContext) -> None:
        """Make it the context's own certificate. Raises ``SettingsError``."""
        content = self._content(self.path)
        try:
            if _PEM in content:
                context.load_cert_chain(self.path, self.key, password=self._password)
            else:
                self._load_pkcs12(context, content)
        except ssl.SSLError as error:
            raise self._wrong(f"no certificate with a key that fits: {error.reason or error}") from error
        except OSError as error:
            raise self._wrong(f"{self.key or self.path} cannot be read: {error.strerror}") from error

    def load_authorities(self, context: ssl.SSLContext) -> None:
        """Trust the authorities in it. Raises ``SettingsError``."""
        content = self._content(self.path)
        if _PEM not in content:
            store = self._pkcs12(content)
            certificates = [one.certificate for one in (store.cert, *store.additional_certs) if one is not None]
            content = b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
        try:
            context.load_verify_locations(cadata=content.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            raise self._wrong("holds no certificates of authorities") from error

    def _load_pkcs12(self, context: ssl.SSLContext, content: bytes) -> None:
        store = self._pkcs12(content)
        if store.key is None or store.cert is None:
            raise self._wrong("holds no certificate with its key")
        # OpenSSL takes a key by the way of a file only: that one is encrypted by a password nobody else has
        passing = secrets.token_bytes(32).hex().encode()
        key = store.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passing))
        chain = [one.certificate.public_bytes(Encoding.PEM) for one in (store.cert, *store.additional_certs)]
        with tempfile.NamedTemporaryFile() as file:
            file.write(key + b"".join(chain))
            file.flush()
            context.load_cert_chain(file.name, password=passing)

    def _pkcs12(self, content: bytes) -> pkcs12.PKCS12KeyAndCertificates:
        try:
            return pkcs12.load_pkcs12(content, self._password() or None)
        except ValueError as error:
            raise self._wrong(f"neither PEM nor PKCS12, or its password is another: {error}") from error

    def _password(self) -> bytes:
        if self.password_file is not None:
            return self._content(self.password_file).strip()
        return self.password.get_secret_value().encode() if self.password is not None else b""

    def _content(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise self._wrong(f"{path} cannot be read: {error.strerror}") from error

    def _wrong(self, why: str) -> SettingsError:
        return SettingsError(f"{self.setting}={self.path}: {why}")
