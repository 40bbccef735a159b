"""What ``imaging doctor`` looks at on an edge: its settings, its spool, the hub, and the connection between them."""

import asyncio
import os
import shutil
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from imaging_services.apps.dimse_proxy.settings import Settings
from imaging_services.domain.errors import BackendUnavailable, SettingsError
from imaging_services.local.edge import check
from imaging_services.local.nats_server import MAX_PAYLOAD_BYTES, greeting
from imaging_services.local.readiness import http_json
from imaging_services.runtime import load_settings

_SECONDS = 5
_HEADERS = 32 * 1024  # of a message beside its data set

Check = Callable[[], Awaitable[str | None]]


def edge_checks() -> list[tuple[str, Check]]:
    """Those of the environment's edge, none where it names none. Raises ``SettingsError``."""
    if not os.environ.get("EDGE_HUB_URL"):
        return []
    settings = load_settings(Settings).model_copy(update={"EDGE": True})
    return [
        ("edge spool", lambda: _spool(settings)),
        *((f"edge hub {url}", lambda url=url: _hub(settings, url)) for url in settings.hub_urls()),
        ("edge connection", lambda: _connection(settings)),
    ]


async def _spool(settings: Settings) -> str:
    check(settings)
    directory = settings.EDGE_SPOOL_DIR
    if not os.access(directory, os.W_OK):
        raise SettingsError(f"EDGE_SPOOL_DIR {directory} cannot be written: it belongs to another user")
    disk = shutil.disk_usage(directory)
    if disk.total < settings.EDGE_SPOOL_BYTES + settings.EDGE_DISK_RESERVE_BYTES:
        raise SettingsError(
            f"the disk below {directory} has {disk.total:,} bytes, less than EDGE_SPOOL_BYTES and "
            "EDGE_DISK_RESERVE_BYTES together: C-STORE will get A700H before the spool is full"
        )
    if disk.free < settings.EDGE_DISK_RESERVE_BYTES:
        raise BackendUnavailable(f"{disk.free:,} bytes free below {directory}: C-STORE gets A700H")
    return f"{directory}: {settings.EDGE_SPOOL_BYTES:,} bytes at most, {disk.free:,} free on its disk"


async def _hub(settings: Settings, url: str) -> str:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 0
    if parts.scheme in ("ws", "wss"):  # it greets only after an upgrade
        await asyncio.to_thread(lambda: socket.create_connection((host, port), _SECONDS).close())
        return "accepts connections"
    said = await asyncio.to_thread(greeting, port, host, _SECONDS)
    if said is None:
        raise BackendUnavailable("no NATS server answers: is outgoing TCP to it allowed?")
    longest = min(settings.inline_limit(own_domain=True) + _HEADERS, MAX_PAYLOAD_BYTES)
    most = int(said.get("max_payload", 0))
    if most < longest:
        raise SettingsError(
            f"the hub takes messages up to {most:,} bytes: raise its max_payload to {MAX_PAYLOAD_BYTES:,}, or set "
            f"DIMSE_INLINE_LIMIT to {max(most - _HEADERS, 0)} here"
        )
    return f"NATS {said.get('version')}, JetStream domain {said.get('domain') or 'none'}, messages up to {most:,} bytes"


async def _connection(settings: Settings) -> str:
    state = await asyncio.to_thread(http_json, f"http://127.0.0.1:{settings.EDGE_MONITORING_PORT}/leafz")
    if state is None:
        raise BackendUnavailable("the edge's NATS server does not run on this machine")
    leaves = state.get("leafs") or []
    if not leaves:
        raise BackendUnavailable(f"not connected to {settings.EDGE_HUB_URL}: images wait in the spool; see its log")
    return f"connected to {leaves[0].get('name')}, round trip {leaves[0].get('rtt')}"
