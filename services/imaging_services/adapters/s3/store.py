"""Storage spaces in the cloud: S3 and Azure Blob through obstore."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
import structlog
from obstore.store import AzureStore, S3Store

from imaging_services.adapters.s3.errors import RangeNotSatisfiable, converted
from imaging_services.adapters.s3.settings import BucketSettings
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, NotFound
from imaging_services.domain.ports import ObjectInfo

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

log = structlog.get_logger(__name__)

BLOCK_SIZE = 1024 * 1024
"""Longest block of a stream, bytes."""
RANGE_SIZE = 16 * 1024 * 1024
"""Longest range that is asked for at once, bytes."""
PART_SIZE = 8 * 1024 * 1024
"""Least size of the parts of a large upload, bytes; S3 wants 5 MiB."""
PARTS_AT_ONCE = 4
"""Parts of one upload in memory and under way."""
LARGE_UPLOADS_AT_ONCE = 2
"""Each holds ``PARTS_AT_ONCE`` parts in memory."""
MOST_PARTS = 9000
"""S3 takes 10,000."""
DEADLINE_SECONDS = 60
"""For operations that move little data."""

_ATTRIBUTES: "obstore.Attributes" = {"Content-Type": "application/octet-stream"}
_CONNECT_TIMEOUT = timedelta(seconds=5)
_REQUEST_TIMEOUT = timedelta(minutes=10)
# A connection that a firewall has forgotten says nothing for ever. One that waits in the pool is not tried after some
# seconds, and a request that went into one goes again by another while its sender still waits.
_IDLE_TIMEOUT = timedelta(seconds=10)
_SILENCE_TIMEOUT = timedelta(seconds=30)
_RETRIES: "RetryConfig" = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}
T = TypeVar("T")


class CloudStore:
    """A bucket or container. Made by ``open_space``."""

    def __init__(self, settings: BucketSettings) -> None:
        self._settings = settings
        self._large_uploads = asyncio.Semaphore(LARGE_UPLOADS_AT_ONCE)
        self._store = _azure(settings) if settings.provider == "azure" else _s3(settings)

    @property
    def bucket_name(self) -> str | None:
        """``BUCKET_NAME``; None for Azure."""
        return self._settings.BUCKET_NAME if self._settings.provider == "s3" else None

    async def put(self, key: str, body: bytes | Path) -> None:
        """Write an object; a file goes in parts, at most ``PARTS_AT_ONCE`` in memory."""
        if isinstance(body, bytes):
            with converted("put"):
                await obstore.put_async(self._store, key, body, attributes=_ATTRIBUTES, use_multipart=False)
            return
        async with self._large_uploads:
            await self._put_file(key, body)

    async def _put_file(self, key: str, body: Path) -> None:
        size = (await asyncio.to_thread(body.stat)).st_size
        part_size = max(PART_SIZE, -(-size // MOST_PARTS))
        try:
            with converted("put"):
                await obstore.put_async(
                    self._store,
                    key,
                    body,
                    attributes=_ATTRIBUTES,
                    use_multipart=size > part_size,
                    chunk_size=part_size,
                    max_concurrency=PARTS_AT_ONCE,
                )
        except BaseException:
            await self._abort_parts(key)
            raise

    async def _abort_parts(self, key: str) -> None:
        """Remove parts that a failed or cancelled upload left: they are invisible, but they are paid for. Azure removes
        blocks that were never committed by itself, after a week."""
        if self._settings.provider == "s3":
            # Only imported when needed: boto3 takes a third of a second and 20 MB.
            from imaging_services.adapters.s3.administration import abort_uploads

            await asyncio.shield(asyncio.to_thread(abort_uploads, self._settings, key))

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read a range; shorter, or empty, when the object ends earlier. Raises ``NotFound``."""
        try:
            with converted("get"):
                if length == 0 or (length is None and start == 0):
                    found = await _in_time("get", obstore.get_async(self._store, key))
                    return b"" if length == 0 else bytes(await _in_time("get", found.bytes_async()))
                if length is None:
                    found = await _in_time(
                        "get", obstore.get_async(self._store, key, options={"range": {"offset": start}})
                    )
                    return bytes(await _in_time("get", found.bytes_async()))
                return bytes(
                    await _in_time("get", obstore.get_range_async(self._store, key, start=start, length=length))
                )
        except RangeNotSatisfiable:
            return b""

    async def stream(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Read as blocks of at most ``BLOCK_SIZE``. Raises ``NotFound`` before the first.

        Long reads are cut into ranges: a server that reads ahead faster than we send on would hold the whole object.
        Objects never change under their key, so the ranges fit together.
        """
        end = None if length is None else start + length
        while end is None or start < end:
            stop = start + RANGE_SIZE if end is None else min(end, start + RANGE_SIZE)
            try:
                with converted("get"):
                    options: obstore.GetOptions = {"range": (start, stop)}
                    found = await _in_time("get", obstore.get_async(self._store, key, options=options))
                    async for piece in found.stream(min_chunk_size=BLOCK_SIZE // 4):
                        for position in range(0, len(piece), BLOCK_SIZE):
                            yield bytes(piece[position : position + BLOCK_SIZE])
            except RangeNotSatisfiable:
                return
            size = found.meta["size"]
            end = size if end is None else min(end, size)
            start = stop

    async def head(self, key: str) -> ObjectInfo | None:
        """Size and time, or None."""
        try:
            with converted("head"):
                meta = await _in_time("head", obstore.head_async(self._store, key))
        except NotFound:
            return None
        return _info(meta)

    async def delete(self, key: str) -> None:
        """Remove an object; absent is fine."""
        try:
            with converted("delete"):
                await _in_time("delete", obstore.delete_async(self._store, key))
        except NotFound:
            log.debug("object to delete was absent", key=key)

    async def list(self, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every object, a page at a time. There are servers that begin with the first whatever is asked."""
        with converted("list"):
            async for page in obstore.list(self._store, offset=after or None, chunk_size=1000):
                for meta in page:
                    if meta["path"] > after:
                        yield _info(meta)

    async def check(self) -> None:
        """Write, read and delete a small object. Raises with a sentence that names the place."""
        key = f"imaging-check-{secrets.token_hex(8)}"
        try:
            await self.put(key, b"check")
            if await self.get(key) != b"check":
                raise BackendUnavailable("what was written is not what is read")
            await self.delete(key)
        except (BackendUnavailable, NotFound) as error:
            raise BackendUnavailable(f"{self._place()}: {error}") from error

    async def close(self) -> None:
        """Connections are closed with the object; nothing is buffered."""

    def _place(self) -> str:
        settings = self._settings
        if settings.provider == "s3":
            return f"bucket {settings.BUCKET_NAME} at {settings.endpoint}"
        return f"container {settings.AZURE_CONTAINER_NAME} at {settings.AZURE_STORAGE_CONNECTION_STRING}"


async def _in_time(operation: str, awaitable: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await awaitable
    except TimeoutError:
        raise DeadlineExceeded(f"{operation}: the storage space does not answer in time") from None


def _info(meta: "obstore.ObjectMeta") -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["last_modified"])


def _s3(settings: BucketSettings) -> S3Store:
    endpoint = settings.endpoint
    if settings.virtual_hosted:
        endpoint = endpoint.replace("://", f"://{settings.BUCKET_NAME}.", 1)
    return S3Store(
        settings.BUCKET_NAME,
        endpoint=endpoint,
        region=settings.BUCKET_REGION,
        virtual_hosted_style_request=settings.virtual_hosted,
        client_options=_client_options(settings, endpoint),
        retry_config=_RETRIES,
        config={**_credentials(settings), "unsigned_payload": settings.is_tamper_proof},
    )


def _credentials(settings: BucketSettings) -> "S3Config":
    """Static credentials; without them the platform's own (web identity, instance role) are used."""
    if settings.AWS_ACCESS_KEY_ID is None or settings.AWS_SECRET_ACCESS_KEY is None:
        log.info("no S3 credentials in the Secret, using the platform's")
        return {}
    return {
        "access_key_id": settings.AWS_ACCESS_KEY_ID,
        "secret_access_key": settings.AWS_SECRET_ACCESS_KEY.get_secret_value(),
    }


def _azure(settings: BucketSettings) -> AzureStore:
    endpoint = settings.AZURE_STORAGE_CONNECTION_STRING or ""
    key = settings.AZURE_STORAGE_ACCOUNT_KEY
    return AzureStore(
        settings.AZURE_CONTAINER_NAME,
        endpoint=endpoint.rstrip("/"),
        account_name=settings.AZURE_STORAGE_ACCOUNT_NAME or "",
        account_key=key.get_secret_value() if key else "",
        client_options=_client_options(settings, endpoint),
        retry_config=_RETRIES,
    )


def _client_options(settings: BucketSettings, endpoint: str) -> "ClientConfig":
    options: ClientConfig = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": _CONNECT_TIMEOUT,
        "timeout": _REQUEST_TIMEOUT,
        "read_timeout": _SILENCE_TIMEOUT,
        "pool_idle_timeout": _IDLE_TIMEOUT,
        "allow_invalid_certificates": settings.BUCKET_SKIP_VERIFY,
    }
    certificates = settings.ca_certificates()
    if certificates is not None:
        options["root_certificate"] = certificates
    return options
