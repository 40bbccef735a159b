"""Addresses of NATS servers, as pods of other namespaces need them."""

import re
from urllib.parse import urlsplit

from imaging_operator.builders.names import host
from imaging_operator.builders.types import ClusterSettings
from imaging_operator.errors import Wrong

_SHORT = re.compile(r"(?P<before>([a-z+]+://)?([^/]*@)?)(?P<host>[A-Za-z0-9_-]+)(?P<after>(:[0-9]+)?(/.*)?)")
_ITSELF = "localhost"


def reachable(servers: str, namespace: str, settings: ClusterSettings) -> str:
    """The same servers for a pod of any namespace.

    A name without a dot is a Service of the resource's namespace: only pods of that namespace find it so, but the
    operator and KEDA run in others.
    """
    return ",".join(_reachable(each.strip(), namespace, settings) for each in servers.split(","))


def _reachable(server: str, namespace: str, settings: ClusterSettings) -> str:
    match = _SHORT.fullmatch(server)
    if match is None or match["host"] == _ITSELF:
        return server
    return f"{match['before']}{host(match['host'], namespace, settings)}{match['after']}"


def first_host(servers: str) -> str:
    """Host of the first server, an IPv6 address in brackets. Raises ``Wrong`` for what is no address; it may hold a
    password, so the message does not repeat it."""
    first = servers.split(",")[0].strip()
    try:
        name = urlsplit(first if "://" in first else f"//{first}").hostname
    except ValueError:
        name = None
    if not name:
        raise Wrong("The address of the NATS server (natsUrl) cannot be read: write nats://<host>:<port>")
    return f"[{name}]" if ":" in name else name
