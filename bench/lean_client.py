"""An HTTP client that costs little: what a comparison measures is the server, not the client beside it on its cores."""

import http.client
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlencode, urlsplit

_BUFFER = 1 << 20
_SECONDS = 120


class LeanClient:
    """One connection that is kept, to the server of ``base``. Use as a context manager.

    Every answer has to be a success: ``RuntimeError`` with its text otherwise.
    """

    def __init__(self, base: str, headers: Mapping[str, str]) -> None:
        url = urlsplit(base)
        self._connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=_SECONDS)
        self._base, self._headers = url.path, dict(headers)
        self._buffer = memoryview(bytearray(_BUFFER))

    def get(self, path: str, parameters: Mapping[str, str] | None = None) -> bytes:
        """The body."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        return self._request("GET", f"{path}{query}").read()

    def post(self, path: str, body: bytes) -> bytes:
        """The body of the answer."""
        return self._request("POST", path, body).read()

    def received(self, path: str) -> int:
        """Read a body and keep nothing of it; its bytes."""
        response, count = self._request("GET", path), 0
        while block := response.readinto(self._buffer):
            count += block
        return count

    def _request(self, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
        try:
            response = self._ask(method, path, body)
        except ConnectionError:  # the server has closed it in the pause before: Orthanc does so within a second
            self._connection.close()
            response = self._ask(method, path, body)
        if response.status not in (200, 206):
            raise RuntimeError(f"{method} {path}: {response.status} {response.read(1000)!r}")
        return response

    def _ask(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        self._connection.request(method, f"{self._base}{path}", body, self._headers)
        return self._connection.getresponse()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()
