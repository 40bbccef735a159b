"""Subscribers of the local stack: from what stands on the command line to a service's environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from imaging_services.domain.errors import SettingsError

DIMSE_PORT = 11112


@dataclass(frozen=True)
class Binding:
    """A binding service: its component and what it needs beside the event log."""

    component: str
    environment: Mapping[str, str]

    @property
    def target(self) -> str:
        """Where it delivers, for people."""
        of = self.environment
        if "DIMSE_TARGET_HOST" in of:
            return f"C-STORE to {of['DIMSE_TARGET_AE']}@{of['DIMSE_TARGET_HOST']}:{of['DIMSE_TARGET_PORT']}"
        kinds = {"STOW_ENDPOINT": "STOW-RS", "FHIR_ENDPOINT": "FHIR", "WEBHOOK_ENDPOINT": "CloudEvents"}
        return next(f"{what} to {of[name]}" for name, what in kinds.items() if name in of)


def instance_binding(target: str) -> Binding:
    """``dimse://AE@host:port`` C-STORE, ``http(s)://…/studies`` or ``stow+http(s)://…`` STOW-RS, other ``http(s)://…``
    a CloudEvents webhook. Raises ``SettingsError`` for anything else."""
    scheme, url = _split(target, "--instance-binding")
    if scheme == "dimse":
        return Binding("instance-binding", _dimse(target))
    if scheme == "stow" or (scheme == "" and _is_studies_resource(url)):
        return Binding("instance-binding", {"STOW_ENDPOINT": url})
    if scheme in ("", "webhook"):
        return Binding("instance-binding", {"WEBHOOK_ENDPOINT": url})
    raise SettingsError(
        f"--instance-binding {target}: use dimse://AE@host:port, http(s)://…/studies (STOW-RS) or "
        "http(s)://… (CloudEvents webhook)"
    )


def study_binding(target: str) -> Binding:
    """``fhir+http(s)://…`` FHIR ``ImagingStudy``, ``http(s)://…`` a CloudEvents webhook. Raises ``SettingsError``."""
    scheme, url = _split(target, "--study-binding")
    if scheme == "fhir":
        return Binding("study-binding", {"FHIR_ENDPOINT": url})
    if scheme in ("", "webhook"):
        return Binding("study-binding", {"WEBHOOK_ENDPOINT": url})
    raise SettingsError(
        f"--study-binding {target}: use fhir+http(s)://…/ImagingStudy or http(s)://… (CloudEvents webhook)"
    )


def parse_dimse(target: str) -> tuple[str, str, int]:
    """AE title, host and port of ``[dimse://]AE@host[:port]``. Raises ``SettingsError``."""
    try:
        parts = urlsplit(target if "://" in target else f"dimse://{target}")
        title, host, port = parts.username, parts.hostname, parts.port or DIMSE_PORT
    except ValueError:
        title = host = None
    # PS3.8 table 9-11: an AE title has at most 16 characters, spaces at either end do not count.
    if not title or not host or len(title) > 16:
        raise SettingsError(f"{target}: write AE@host:port, such as ORTHANC@127.0.0.1:4242; AE has 1 to 16 characters")
    return title, host, port


def _dimse(target: str) -> dict[str, str]:
    title, host, port = parse_dimse(target)
    return {"DIMSE_TARGET_AE": title, "DIMSE_TARGET_HOST": host, "DIMSE_TARGET_PORT": str(port)}


def _split(target: str, option: str) -> tuple[str, str]:
    """``fhir+https://x`` gives (``fhir``, ``https://x``), ``https://x`` (``""``, ``https://x``)."""
    scheme, separator, rest = target.partition("://")
    kind, plus, transport = scheme.rpartition("+")
    if not separator or not rest or (plus and transport not in ("http", "https")):
        raise SettingsError(f"{option} {target}: not a URL")
    if not plus and scheme in ("http", "https"):
        return "", target
    return (kind, f"{transport}://{rest}") if plus else (scheme, target)


def _is_studies_resource(url: str) -> bool:
    return urlsplit(url).path.rstrip("/").endswith("/studies")
