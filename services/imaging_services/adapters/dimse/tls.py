"""TLS of associations: the BCP 195 profiles (PS3.15 annex B.9 to B.12), with files that may change."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from imaging_services.adapters.dimse.tls_files import Stored
from imaging_services.domain.errors import SettingsError

log = structlog.get_logger(__name__)

TLS_END_SECONDS = 3.0
"""How long a peer's part of TLS's end is waited for; many leave it out."""
LOOK_SECONDS = 5.0
"""Between two looks of a listener at its files."""

_WITH = "_WITH_"
_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
"""Suites of TLS 1.2 by the name that IANA and Java give them; those of TLS 1.3 are all good."""
_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

Stamp = tuple[tuple[int, int, int], ...]


class TlsContext:
    """A context made of files, and made again when they have changed. While what they hold is wrong, as in the middle
    of a change, the last right one counts. Raises ``SettingsError`` when it is wrong at the start."""

    def __init__(self, make: Callable[[], ssl.SSLContext], files: Sequence[Path] = ()) -> None:
        self._make, self._files = make, tuple(files)
        self._stamp = self._look()
        self._context = make()

    async def current(self) -> ssl.SSLContext:
        """The context for the next connection. One that is open keeps its own."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = await asyncio.to_thread(self._make)
                log.info("TLS certificates read again", files=[str(path) for path in self._files])
            except SettingsError as error:
                log.error("TLS certificates not read again, the former ones go on", error=str(error))
        return self._context

    def _look(self) -> Stamp:
        """Kubernetes swaps a symbolic link above the files: they are other files then."""
        return tuple(_stamp(path) for path in self._files)


def server_context(
    own: Stored, authorities: Stored | None, versions: Sequence[str] = (), suites: Sequence[str] = ()
) -> TlsContext:
    """For a listener. With ``authorities`` each client has to show a certificate of theirs (mutual TLS)."""
    openssl = openssl_suites(suites)

    def make() -> ssl.SSLContext:
        context = _bounded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), versions, openssl)
        own.load_certificate(context)
        if authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            authorities.load_authorities(context)
        return context

    return TlsContext(make, [*own.files, *(authorities.files if authorities else ())])


def client_context(own: Stored | None, authorities: Stored | None, *, check_host: bool = True) -> TlsContext:
    """For associations that we open. The peer's certificate is verified against ``authorities``, by default the
    system's, and with ``check_host`` against the host that was called."""
    openssl = openssl_suites(())

    def make() -> ssl.SSLContext:
        context = _bounded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), (), openssl)
        context.check_hostname = check_host
        if authorities is not None:
            authorities.load_authorities(context)
        else:
            context.load_default_certs()
        if own is not None:
            own.load_certificate(context)
        return context

    return TlsContext(make, [path for one in (own, authorities) if one is not None for path in one.files])


def checked_versions(names: Sequence[str]) -> tuple[str, ...]:
    """Raises ``SettingsError`` for a version that BCP 195 does not allow."""
    for name in names:
        if name not in _VERSIONS:
            raise SettingsError(f"DIMSE_TLS_PROTOCOL_VERSIONS: {name} is not one of {', '.join(_VERSIONS)}")
    return tuple(names)


def openssl_suites(names: Sequence[str]) -> str:
    """Suites of TLS 1.2 as OpenSSL names them; all good ones by default. Raises ``SettingsError`` for a weak one."""
    for name in names:
        if name not in _SUITES and _WITH in name:
            raise SettingsError(
                f"DIMSE_TLS_CIPHER_SUITES: {name} is none of those that BCP 195 recommends: {', '.join(_SUITES)}"
            )
    return ":".join(_SUITES[name] for name in names if name in _SUITES) or ":".join(_SUITES.values())


def _bounded(context: ssl.SSLContext, versions: Sequence[str], suites: str) -> ssl.SSLContext:
    allowed = [_VERSIONS[name] for name in checked_versions(versions)] or list(_VERSIONS.values())
    context.minimum_version, context.maximum_version = min(allowed), max(allowed)
    context.set_ciphers(suites)
    # DICOM says itself where a message ends: peers that close without TLS's own end are no danger
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_IGNORE_UNEXPECTED_EOF
    context.sslobject_class = _Explaining
    return context


class _Explaining(ssl.SSLObject):
    """Says in the log why a handshake failed, which the event loop keeps to itself."""

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            log.warning("TLS handshake failed", side="listener" if self.server_side else "requestor", why=why)
            raise


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
