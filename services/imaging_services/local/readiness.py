"""Small blocking HTTP requests to programs on this machine: health, counts."""

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from imaging_services.local.ports import LOOPBACK

_SECONDS = 2


def http_status(port: int, path: str) -> int | None:
    """The status of ``GET path`` on this machine, None when there is no answer."""
    answer = _exchange("GET", f"http://{LOOPBACK}:{port}{path}")
    return answer[0] if answer else None


def http_json(url: str) -> Any:
    """The JSON body of a 200 answer, None for any other and when there is none."""
    answer = http_get(url)
    if answer is None or answer[0] != 200:
        return None
    try:
        return json.loads(answer[1])
    except ValueError:
        return None


def http_get(url: str, accept: str = "*/*", seconds: float = _SECONDS) -> tuple[int, bytes] | None:
    """Status and body of ``GET url``, None when there is no answer."""
    return _exchange("GET", url, {"Accept": accept}, seconds=seconds)


def http_put(url: str, body: bytes) -> int | None:
    """The status of ``PUT url``, None when there is no answer."""
    answer = _exchange("PUT", url, {"Content-Type": "application/octet-stream"}, body, seconds=10)
    return answer[0] if answer else None


def _exchange(
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    seconds: float = _SECONDS,
) -> tuple[int, bytes] | None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or LOOPBACK, parts.port, timeout=seconds)
    try:
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.request(method, target, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
