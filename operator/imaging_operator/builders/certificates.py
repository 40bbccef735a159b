"""Certificates of the user's Secrets and ConfigMaps, as mounted files."""

from collections.abc import Sequence

from imaging_operator.builders.pod import Mount
from imaging_operator.specs.connections import Authorities, ClientTls

_READABLE_BY_GROUP = 0o440
"""libpq refuses a key that others may read; the pod's fsGroup may."""


def authorities_mounts(tls: Authorities | None, use: str) -> list[Mount]:
    """The volume of the authorities to trust, when the resource names them; ``use`` is a word for names and paths."""
    if tls is None or not authorities_file(tls, use):
        return []
    items = [{"key": "ca.crt", "path": "ca.crt"}]
    source = (
        {"secret": {"secretName": tls.ca_secret_name, "items": items}}
        if tls.ca_secret_name
        else {"configMap": {"name": tls.ca_config_map_name, "items": items}}
    )
    return [Mount(f"{use}-ca", f"/etc/{use}/ca", source)]


def authorities_file(tls: Authorities | None, use: str) -> str:
    """Where the PEM file of the authorities will be; empty without them."""
    named = tls and (tls.ca_secret_name or tls.ca_config_map_name)
    return f"/etc/{use}/ca/ca.crt" if named else ""


def client_mounts(tls: ClientTls | None, use: str) -> list[Mount]:
    """The volumes of authorities and client certificate."""
    mounts = authorities_mounts(tls, use)
    if tls and tls.secret_name:
        secret = {"secretName": tls.secret_name, "defaultMode": _READABLE_BY_GROUP}
        mounts.append(Mount(f"{use}-certificate", f"/etc/{use}/certificate", {"secret": secret}))
    return mounts


def client_files(tls: ClientTls | None, use: str, names: Sequence[str]) -> dict[str, str]:
    """Variables, named in the order authorities, certificate, key, that say where the files are."""
    folder = f"/etc/{use}/certificate"
    has_certificate = bool(tls and tls.secret_name)
    paths = (
        authorities_file(tls, use),
        f"{folder}/tls.crt" if has_certificate else "",
        f"{folder}/tls.key" if has_certificate else "",
    )
    return {name: path for name, path in zip(names, paths, strict=True) if path}
