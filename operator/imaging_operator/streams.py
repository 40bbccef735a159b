"""Removing the JetStream streams of a deleted resource, when it says ``retention: Delete``."""

import base64
import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from nats.js.errors import NotFoundError
from pydantic import SecretStr

from imaging_operator.builders.servers import reachable
from imaging_operator.errors import MissingReference, NotYet
from imaging_operator.kinds.common import STREAM, Kind, Wanted
from imaging_operator.resources import Json
from imaging_operator.settings import OperatorSettings
from imaging_services.adapters.nats.connection import connect, nats_errors
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.domain.errors import ImagingError

log = structlog.get_logger(__name__)

_PATIENCE = 10.0
"""Wait for a NATS server, and for each answer, seconds."""


class JetStreamRemover:
    """Removes streams; an implementation of ``reconcile.StreamRemover``."""

    def __init__(self, kinds: Mapping[str, Kind[Any]], settings: OperatorSettings) -> None:
        self._kinds = kinds
        self._settings = settings

    async def __call__(self, wanted: Wanted[Any]) -> list[str]:
        """Words of what was removed; streams that are gone already are fine. Raises ``NotYet`` that says why not."""
        durable = self._kinds[wanted.kind].durable(wanted, self._settings)
        names = [each.removeprefix(STREAM) for each in durable if each.startswith(STREAM)]
        if not names:
            return []
        with tempfile.TemporaryDirectory(prefix="nats-") as folder:
            settings = _nats(wanted, self._settings, Path(folder))
            try:
                return await _remove(settings, names, _domain(wanted.spec))
            except ImagingError as error:
                raise NotYet(f"The streams {', '.join(names)} cannot be removed: {error}") from error


def _domain(spec: Any) -> str:
    """The JetStream domain of what is to be removed: of a relay, what its end receives. The queues of several domains
    are their edges' own; there the server's is meant."""
    names = ("jet_stream_domain", "jet_stream_receive_domain")
    domain = str(next((getattr(spec, name) for name in names if hasattr(spec, name)), ""))
    return "" if "," in domain or "*" in domain else domain


async def _remove(settings: NatsSettings, names: list[str], domain: str) -> list[str]:
    removed = []
    async with connect(settings, patience=_PATIENCE) as client:
        streams = client.jetstream(domain=domain or None, timeout=_PATIENCE)
        for name in names:
            with nats_errors(f"removing {STREAM}{name}"), contextlib.suppress(NotFoundError):
                await streams.delete_stream(name)
                removed.append(f"{STREAM}{name}")
                log.info("stream removed", stream=name)
    return removed


def _nats(wanted: Wanted[Any], settings: OperatorSettings, folder: Path) -> NatsSettings:
    """The server of the resource's streams, with what it needs to be reached."""
    spec = wanted.spec
    _check_found(wanted)
    secret = wanted.found.get("nats_tls_certificate")
    return NatsSettings(
        url=reachable(spec.nats_url or settings.EVENTS_NATS_URL, wanted.namespace, settings),
        tls_enabled=spec.nats_secure or (not spec.nats_url and settings.EVENTS_NATS_TLS_ENABLED),
        tls_ca_file=_file(wanted.found.get("nats_tls_ca"), "ca.crt", folder),
        tls_cert_file=_file(secret, "tls.crt", folder),
        tls_key_file=_file(secret, "tls.key", folder),
        auth_token=_token(wanted.found.get("token")),
        name="imaging-ingestion-operator",
    )


def _check_found(wanted: Wanted[Any]) -> None:
    """Without its token the operator would come as somebody else."""
    if wanted.spec.nats_token_secret and "token" not in wanted.found:
        raise MissingReference(f"Secret {wanted.spec.nats_token_secret} with the NATS token is gone")


def _token(secret: Json | None) -> SecretStr | None:
    value = _value(secret, "token") if secret else b""
    return SecretStr(value.decode()) if value else None


def _file(source: Json | None, key: str, folder: Path) -> Path | None:
    value = _value(source, key) if source else b""
    if not value:
        return None
    path = folder / key
    path.touch(mode=0o600)
    path.write_bytes(value)
    return path


def _value(source: Json, key: str) -> bytes:
    """One key of a Secret or a ConfigMap."""
    text = (source.get("data") or {}).get(key) or ""
    return base64.b64decode(text) if source["kind"] == "Secret" else str(text).encode()
