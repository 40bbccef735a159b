"""What a verb needs of an HTTP client; ``adapters/http/client.py`` has the real one."""

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class HttpReply(Protocol):
    """A whole answer; names of headers are lower-case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class HttpStream(Protocol):
    """An answer whose body is read as it comes; names of headers are lower-case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def blocks(self) -> AsyncIterator[bytes]: ...


class HttpClient(Protocol):
    """One peer, by its base URL.

    Statuses other than 2xx raise errors of the tree, except those in ``accept``, which are answers. ``url`` is added
    to the base URL, or stands alone when absolute.
    """

    async def request(
        self,
        method: str,
        url: str = "",
        *,
        content: bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> HttpReply:
        """Ask, and read the whole answer."""
        ...

    def stream(
        self,
        method: str,
        url: str = "",
        *,
        content: bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> AbstractAsyncContextManager[HttpStream]:
        """Ask, and read the answer while it arrives, inside the context."""
        ...
