"""The storage space as files: the user's ConfigMap and Secret, and the authorities to trust."""

from imaging_operator.builders.certificates import authorities_file, authorities_mounts
from imaging_operator.builders.config import config_map
from imaging_operator.builders.pod import Mount, config_map_mount, secret_mount
from imaging_operator.builders.types import Json, Owner
from imaging_operator.specs.connections import Bucket

CONFIG_PATH = "/etc/bucket/config"
SECRET_PATH = "/etc/bucket/secret"  # noqa: S105 - a path
_CONFIG, _SECRET, _USE = "bucket-config-volume", "bucket-secret-volume", "bucket"


def bucket_environment() -> dict[str, str]:
    """Where the files are."""
    return {"BUCKET_CONFIG_PATH": CONFIG_PATH, "BUCKET_SECRET_PATH": SECRET_PATH}


def bucket_objects(owner: Owner, spec: Bucket, component: str) -> list[Json]:
    """The key ``BUCKET_CA_FILE`` beside the user's own keys: the services read it as a file like all others."""
    if not _authorities(spec):
        return []
    return [config_map(owner, _ca_config(owner), component, {"BUCKET_CA_FILE": _authorities(spec)})]


def bucket_mounts(owner: Owner, spec: Bucket) -> list[Mount]:
    """The volumes, by the names that they have always had."""
    secret = secret_mount(_SECRET, SECRET_PATH, spec.bucket_secret_name)
    if not _authorities(spec):
        return [config_map_mount(_CONFIG, CONFIG_PATH, spec.bucket_config_name), secret]
    sources = [{"configMap": {"name": name}} for name in (spec.bucket_config_name, _ca_config(owner))]
    joined = Mount(_CONFIG, CONFIG_PATH, {"projected": {"sources": sources}})
    return [joined, secret, *authorities_mounts(spec.bucket_tls, _USE)]


def _authorities(spec: Bucket) -> str:
    return authorities_file(spec.bucket_tls, _USE)


def _ca_config(owner: Owner) -> str:
    """WEB and DIS may have the same name: the kind is in it."""
    return f"{owner.name}-{'dicomweb' if owner.kind == 'DicomwebIngestionService' else 'dimse'}-bucket-ca"
