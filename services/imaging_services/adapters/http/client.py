"""Outgoing HTTP of the bindings: one target, its credentials and limits, and answers in the terms of the error tree."""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import structlog

from imaging_services.adapters.http.errors import error_of, http_errors
from imaging_services.domain.errors import InvalidInput, OutOfResources, SettingsError

log = structlog.get_logger(__name__)

Content = bytes | AsyncIterable[bytes] | None
MAX_REPLY = 4 * 1024 * 1024
_MAX_ERROR = 4096  # bytes read of an answer that is an error
_MAX_PAUSE = 5.0  # seconds; a longer Retry-After is left to whoever delivers again


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How to reach a target. ``authorization`` is sent verbatim and wins over ``basic`` (user, password).

    ``timeout_seconds`` bounds each wait for the peer, not the whole exchange: a long body may take longer.
    ``ca_file`` names authorities to trust besides the system's (which ``SSL_CERT_FILE`` replaces for the whole
    process); ``ca_setting`` is the variable it came from, for sentences.
    """

    authorization: str | None = field(default=None, repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    ca_file: Path | None = None
    ca_setting: str = "SSL_CERT_FILE"
    insecure_skip_verify: bool = False
    timeout_seconds: float = 60
    connect_seconds: float = 10
    max_connections: int = 32


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole answer; names of headers are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpStream:
    """An answer whose body is read as it comes; names of headers are lower-case."""

    status: int
    headers: Mapping[str, str]
    blocks: AsyncIterator[bytes]


class HttpTarget:
    """One peer, by its base URL. Credentials go to its origin only.

    Statuses other than 2xx raise: ``NotFound``, ``Conflict``, ``Refused`` for good; ``BackendUnavailable`` for 408,
    425, 429, 5xx and failed connections; ``DeadlineExceeded`` when no answer comes. Redirects are refused.
    """

    def __init__(self, base_url: str, options: HttpOptions | None = None) -> None:
        self._options = options or HttpOptions()
        self._base = _parsed(base_url)
        self._verify = _verification(base_url, self._options)
        self._free = asyncio.Semaphore(self._options.max_connections)
        self._clients: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give back connections."""
        for client in self._clients:
            await client.aclose()

    async def request(
        self,
        method: str,
        url: str = "",
        *,
        content: Content = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
        max_reply: int = MAX_REPLY,
    ) -> HttpReply:
        """Ask, and read the answer of at most ``max_reply`` bytes (more raises ``OutOfResources``).

        ``url`` is added to the base URL, or stands alone when absolute. ``accept`` names statuses that are
        answers, not errors. A short ``Retry-After`` is obeyed once, when the content can be sent again.
        """
        for last in (False, True):
            async with self._send(method, url, content, headers, params) as response:
                pause = _pause(response)
                if last or pause is None or not isinstance(content, bytes | None):
                    await self._check(method, response, accept)
                    body = await _bounded(response, max_reply)
                    return HttpReply(response.status_code, _lowered(response), body)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the last turn returns or raises")

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str = "",
        *,
        content: Content = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> AsyncIterator[HttpStream]:
        """Ask, and read the answer while it arrives, inside the context. Arguments as of ``request``."""
        async with self._send(method, url, content, headers, params) as response:
            await self._check(method, response, accept)
            yield HttpStream(response.status_code, _lowered(response), _blocks(method, response))

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        url: str,
        content: Content,
        headers: Mapping[str, str] | None,
        params: Mapping[str, str] | None,
    ) -> AsyncIterator[httpx.Response]:
        target = self._resolve(url)
        doing = f"{method} {_shown(target)}"
        async with self._a_client() as client:
            with http_errors(doing, ca_setting=self._options.ca_setting):
                sent = {**self._credentials(target), **(headers or {})}
                request = client.build_request(method, target, content=content, headers=sent, params=params)
                response = await client.send(request, stream=True, auth=self._basic(target))
            try:
                yield response
            finally:
                await response.aclose()

    @asynccontextmanager
    async def _a_client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client that nobody else uses meanwhile, the last used first, since its connection is the freshest.

        One client for all would do, but httpcore gives an idle connection to several requests at once and lets all
        but one try again: 32 at a time took six times as long as 4 at a time.
        """
        async with self._free:
            client = self._idle.pop() if self._idle else self._new_client()
            try:
                yield client
            finally:
                self._idle.append(client)

    def _new_client(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            verify=self._verify,
            headers=dict(self._options.headers),
            timeout=httpx.Timeout(self._options.timeout_seconds, connect=self._options.connect_seconds),
            limits=httpx.Limits(max_connections=2, max_keepalive_connections=2),
            follow_redirects=False,
        )
        self._clients.append(client)
        return client

    def _resolve(self, url: str) -> httpx.URL:
        if url.startswith(("http://", "https://")):
            return _parsed(url)
        return httpx.URL(f"{self._base}{url}") if url else self._base

    def _credentials(self, target: httpx.URL) -> dict[str, str]:
        authorization = self._options.authorization
        return {"authorization": authorization} if authorization and self._own(target) else {}

    def _basic(self, target: httpx.URL) -> httpx.BasicAuth | None:
        if self._options.basic is None or self._options.authorization or not self._own(target):
            return None
        return httpx.BasicAuth(*self._options.basic)

    def _own(self, target: httpx.URL) -> bool:
        return (target.scheme, target.host, target.port) == (self._base.scheme, self._base.host, self._base.port)

    async def _check(self, method: str, response: httpx.Response, accept: frozenset[int]) -> None:
        if response.is_success or response.status_code in accept:
            return
        detail = (await _bounded(response, _MAX_ERROR, cut=True)).decode(errors="replace")
        doing = f"{method} {_shown(response.url)}"
        raise error_of(doing, response.status_code, detail, response.headers.get("location"))


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidInput(f"{url[:200]!r} is not a URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInput(f"{url[:200]!r} is not an http:// or https:// URL with a host")
    return parsed


def _verification(base_url: str, options: HttpOptions) -> ssl.SSLContext | bool:
    if options.insecure_skip_verify:
        log.warning("TLS certificates are not verified", target=_shown(httpx.URL(base_url)))
        return False
    context = httpx.create_ssl_context()  # the authorities that come with httpx, or those of SSL_CERT_FILE
    context.load_default_certs()  # those that this machine trusts
    if options.ca_file is None:
        return context
    try:
        context.load_verify_locations(cafile=str(options.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{options.ca_setting} {options.ca_file} cannot be used: {error}") from error
    return context


def _shown(url: httpx.URL) -> str:
    """The URL for sentences and logs: no query, which may hold patient identifiers, and no credentials."""
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"


def _pause(response: httpx.Response) -> float | None:
    """Seconds that a 429 or 503 asks to wait (RFC 9110 section 10.2.3), when few."""
    value = response.headers.get("retry-after", "")
    if response.status_code not in (429, 503) or not value.isdecimal():
        return None
    return float(value) if float(value) <= _MAX_PAUSE else None


def _lowered(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


async def _bounded(response: httpx.Response, limit: int, *, cut: bool = False) -> bytes:
    body = bytearray()
    async for block in _blocks("reading", response):
        body += block
        if len(body) > limit:
            if cut:
                return bytes(body[:limit])
            raise OutOfResources(f"the answer of {_shown(response.url)} is longer than {limit} bytes")
    return bytes(body)


async def _blocks(method: str, response: httpx.Response) -> AsyncIterator[bytes]:
    with http_errors(f"{method} {_shown(response.url)}"):
        async for block in response.aiter_bytes():
            yield block
