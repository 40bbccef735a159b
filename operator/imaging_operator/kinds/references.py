"""References that several kinds have."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imaging_operator.kinds.common import Json, Reference
from imaging_operator.specs.common import EdiReference, Spec
from imaging_operator.specs.connections import Authorities, Bucket, ClientTls

EDI_KIND = "DicomEventDrivenIngestion"
WEB_KIND = "DicomwebIngestionService"
MISSING_TOKEN = "Missing NATS Token Secret"  # noqa: S105 - a message


def event_driven_ingestion(spec: EdiReference) -> Reference:
    """The EDI that the resource belongs to."""
    return Reference("edi", EDI_KIND, spec.dicom_event_driven_ingestion_name, "Error getting DicomEventDrivenIngestion")


def bucket(spec: Bucket) -> list[Reference]:
    """The storage space."""
    return [
        Reference("bucket_secret", "Secret", spec.bucket_secret_name, "Missing Bucket Secret"),
        Reference("bucket_config", "ConfigMap", spec.bucket_config_name, "Missing Bucket Config"),
        *certificates("bucket_tls", spec.bucket_tls, "Bucket"),
    ]


def service_config(spec: Spec) -> list[Reference]:
    """The ConfigMap of environment overrides."""
    if not spec.service_config_name:
        return []
    return [Reference("service_config", "ConfigMap", spec.service_config_name, "Missing Service Config")]


def token(secret: str) -> list[Reference]:
    """The JWT for a NATS server."""
    return [Reference("token", "Secret", secret, MISSING_TOKEN)] if secret else []


def certificates(key: str, tls: Authorities | None, use: str) -> list[Reference]:
    """Secrets and ConfigMaps with certificates; ``use`` is a word for the message."""
    if tls is None:
        return []
    found = []
    if tls.ca_secret_name:
        found.append(Reference(f"{key}_ca", "Secret", tls.ca_secret_name, f"Missing {use} CA Secret"))
    elif tls.ca_config_map_name:
        found.append(Reference(f"{key}_ca", "ConfigMap", tls.ca_config_map_name, f"Missing {use} CA Config"))
    if isinstance(tls, ClientTls) and tls.secret_name:
        found.append(Reference(f"{key}_certificate", "Secret", tls.secret_name, f"Missing {use} TLS Secret"))
    return found


def events_of_edi() -> Sequence[Reference]:
    """What the EDI names for its event log, and the pods of this resource use too: its change rolls them. They come
    after ``edi``, which says their names."""
    return [
        Reference("events_token", "Secret", "", MISSING_TOKEN, named_by=_edi_field("natsTokenSecret")),
        Reference("events_ca", "Secret", "", "Missing NATS CA Secret", named_by=_edi_tls("caSecretName")),
        Reference("events_ca_config", "ConfigMap", "", "Missing NATS CA Config", named_by=_edi_tls("caConfigMapName")),
        Reference("events_certificate", "Secret", "", "Missing NATS TLS Secret", named_by=_edi_tls("secretName")),
    ]


def _edi_field(name: str) -> Callable[[Mapping[str, Json]], str]:
    return lambda found: str(_edi_spec(found).get(name) or "")


def _edi_tls(name: str) -> Callable[[Mapping[str, Json]], str]:
    return lambda found: str((_edi_spec(found).get("natsTls") or {}).get(name) or "")


def _edi_spec(found: Mapping[str, Json]) -> dict[str, Any]:
    return (found.get("edi") or {}).get("spec") or {}
