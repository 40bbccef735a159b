"""A failing storage space: its answers become our errors, and failed uploads leave nothing behind."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from imaging_services.adapters.s3 import store as store_module
from imaging_services.adapters.s3.administration import abort_uploads, ensure_bucket
from imaging_services.adapters.s3.folder import FolderStore
from imaging_services.adapters.s3.settings import BucketSettings
from imaging_services.adapters.s3.store import CloudStore
from imaging_services.domain.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    ImagingError,
    OutOfResources,
    SettingsError,
)
from imaging_services.domain.ports import ObjectStore
from support.servers import S3

MEGABYTE = 1024 * 1024


class FailingS3(ThreadingHTTPServer):
    """Answers every request with one status and error code, or not at all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.code, self.silent, self.requests = 503, "SlowDown", False, 0

    @property
    def settings(self) -> BucketSettings:
        return BucketSettings(
            BUCKET_HOST="http://127.0.0.1",
            BUCKET_PORT=self.server_port,
            BUCKET_NAME="images",
            AWS_ACCESS_KEY_ID="AK",
            AWS_SECRET_ACCESS_KEY="secret",
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FailingS3

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.requests += 1
        if self.server.silent:
            time.sleep(2)
            return
        body = f"<Error><Code>{self.server.code}</Code></Error>".encode() if self.command != "HEAD" else b""
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingS3]:
    monkeypatch.setattr(
        store_module,
        "_RETRIES",
        {
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=60),
            "backoff": {
                "init_backoff": timedelta(milliseconds=10),
                "max_backoff": timedelta(milliseconds=20),
                "base": 2,
            },
        },
    )
    server = FailingS3()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "code", "expected", "sentence"),
    [
        (503, "SlowDown", BackendUnavailable, "503 SlowDown"),
        (500, "InternalError", BackendUnavailable, "500"),
        (507, "InsufficientStorage", OutOfResources, "full"),
        (500, "XMinioStorageFull", OutOfResources, "full"),
        (403, "SignatureDoesNotMatch", BackendUnavailable, "refuses our credentials"),
        (401, "Unauthorized", BackendUnavailable, "refuses our credentials"),
        (404, "NoSuchBucket", BackendUnavailable, "bucket does not exist"),
    ],
)
async def test_answers_become_our_errors(
    failing: FailingS3, status: int, code: str, expected: type[ImagingError], sentence: str
) -> None:
    failing.status, failing.code = status, code
    space = CloudStore(failing.settings)
    for operation in (space.put("k", b"x"), space.get("k"), space.get("k", 1, 2), space.check()):
        with pytest.raises(expected, match=sentence) as caught:
            await operation
        assert "secret" not in str(caught.value)


async def test_server_errors_are_tried_again_but_not_for_ever(failing: FailingS3) -> None:
    with pytest.raises(BackendUnavailable):
        await CloudStore(failing.settings).put("k", b"x")
    assert failing.requests == 3


async def test_a_silent_server_is_a_deadline(failing: FailingS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_REQUEST_TIMEOUT", timedelta(milliseconds=300))
    failing.silent = True
    with pytest.raises(DeadlineExceeded):
        await CloudStore(failing.settings).put("k", b"x")


async def test_a_server_that_is_down_is_unavailable() -> None:
    server = FailingS3()
    server.server_close()
    with pytest.raises(BackendUnavailable):
        await CloudStore(server.settings).put("k", b"x")


def _settings(server: S3, bucket: str) -> BucketSettings:
    url = urlsplit(server.endpoint)
    return BucketSettings(
        BUCKET_HOST=f"http://{url.hostname}",
        BUCKET_PORT=url.port,
        BUCKET_NAME=bucket,
        AWS_ACCESS_KEY_ID=server.access_key_id,
        AWS_SECRET_ACCESS_KEY=server.secret_access_key,
    )


async def test_wrong_credentials_are_told(s3_server: S3, bucket: str) -> None:
    settings = _settings(s3_server, bucket).model_copy(update={"AWS_ACCESS_KEY_ID": "wrong"})
    with pytest.raises(BackendUnavailable, match="refuses our credentials"):
        await CloudStore(settings).check()


async def test_a_missing_bucket_is_created_once(s3_server: S3, bucket: str) -> None:
    settings = _settings(s3_server, f"{bucket}-more")
    assert ensure_bucket(settings)
    assert not ensure_bucket(settings)
    await CloudStore(settings).check()
    with pytest.raises(SettingsError):
        ensure_bucket(BucketSettings(LOCAL_STORAGE_PATH="/tmp"))


async def test_a_cancelled_upload_leaves_neither_object_nor_parts(s3_server: S3, bucket: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(300 * MEGABYTE)
    space = CloudStore(_settings(s3_server, bucket))
    upload = asyncio.create_task(space.put("large", path))
    client = s3_server.client()
    async with asyncio.timeout(60):
        while not client.list_multipart_uploads(Bucket=bucket).get("Uploads"):
            await asyncio.sleep(0.02)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await space.head("large") is None
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    client.close()


def test_only_the_uploads_of_the_key_are_aborted(s3_server: S3, bucket: str) -> None:
    client = s3_server.client()
    for key in ("one", "one-more"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    assert abort_uploads(_settings(s3_server, bucket), "one") == 1
    assert [found["Key"] for found in client.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["one-more"]
    client.close()


async def test_a_folder_that_vanished_is_unavailable(tmp_path: Path) -> None:
    space: ObjectStore = FolderStore(tmp_path / "absent")
    with pytest.raises(BackendUnavailable):
        await space.put("k", b"x")
    with pytest.raises(BackendUnavailable, match="absent"):
        await space.check()


async def test_a_failed_write_into_a_folder_leaves_nothing(tmp_path: Path) -> None:
    space = FolderStore(tmp_path)
    with pytest.raises(BackendUnavailable):
        await space.put("k", tmp_path / "no-such-source")
    assert not list(tmp_path.iterdir())
    for key in ("../escape", "a/b", "", ".."):
        with pytest.raises(ImagingError):
            await space.put(key, b"x")
