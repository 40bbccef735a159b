"""Another S3 server beside the stack's: what our services cost with one that takes less of the machine.

Versity S3 Gateway keeps an object as a file. It never calls `fsync`, so an answer of 200 says nothing of a power cut:
a yardstick for the hop, not a place for images. Or any server that runs already, by its endpoint.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from imaging_services.adapters.s3.administration import ensure_bucket
from imaging_services.adapters.s3.settings import BucketSettings
from imaging_services.local.ports import accepts, free_ports

VERSITYGW = "versitygw"
VERSION = "v1.8.0"
_PACKAGE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
_FOLDER = Path(__file__).parents[1] / "build" / "versitygw"
_BUCKET = "imaging-bench"
_START_SECONDS = 30


@dataclass(frozen=True)
class S3Space:
    """A bucket, and the processes that serve it as far as they are known."""

    name: str
    config: dict[str, str]
    secret: dict[str, str]
    pids: tuple[int, ...] = ()


@contextmanager
def versitygw(folder: Path) -> Iterator[S3Space]:
    """Versity S3 Gateway on a folder for the length of the block; built by Go when it is not there."""
    program = _FOLDER / "versitygw"
    if not program.exists():
        environment = {**os.environ, "GOBIN": str(_FOLDER), "GOFLAGS": "-mod=mod"}
        subprocess.run(["go", "install", _PACKAGE], env=environment, check=True, cwd=Path(__file__).parent)
    objects = folder / "objects"
    objects.mkdir(parents=True)
    (port,) = free_ports(1)
    keys = {"ROOT_ACCESS_KEY": "bench", "ROOT_SECRET_KEY": "bench-secret"}
    command = [program, "--port", f"127.0.0.1:{port}", "--quiet", "posix", objects]
    with (folder / "versitygw.log").open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **keys}, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"versitygw did not start:\n{(folder / 'versitygw.log').read_text()[-2000:]}")
            time.sleep(0.02)
        yield _space(VERSITYGW, f"http://127.0.0.1:{port}", *keys.values(), process.pid)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def chosen(folder: Path, s3: str | None, endpoint: str | None) -> Iterator[S3Space | None]:
    """The server that ``--s3`` or ``--s3-endpoint`` asks for, or none."""
    with ExitStack() as running:
        if endpoint is not None:
            yield given(endpoint)
        else:
            yield running.enter_context(versitygw(folder)) if s3 == VERSITYGW else None


def given(endpoint: str) -> S3Space:
    """A server that runs already, with the credentials of the environment. The bucket is made when it is not there and
    stays; the server's CPU time is not counted."""
    keys = [os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    if not all(keys):
        raise SystemExit("--s3-endpoint needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
    return _space("other-s3", endpoint, *keys)


def _space(name: str, endpoint: str, access_key_id: str, secret_access_key: str, *pids: int) -> S3Space:
    config = {"BUCKET_HOST": endpoint, "BUCKET_NAME": _BUCKET}
    secret = {"AWS_ACCESS_KEY_ID": access_key_id, "AWS_SECRET_ACCESS_KEY": secret_access_key}
    ensure_bucket(BucketSettings.model_validate({**config, **secret}))
    return S3Space(name, config, secret, pids)
