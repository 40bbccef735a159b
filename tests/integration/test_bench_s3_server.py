"""`make bench` on another S3 server: the one that is named, as the services get to know it."""

import sys
from pathlib import Path

import pytest

from imaging_services.adapters.s3.settings import read_bucket_settings
from imaging_services.adapters.s3.store import CloudStore
from support.servers import S3

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def _bench_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    for name in ("s3_server", "folder_space"):
        monkeypatch.delitem(sys.modules, name, raising=False)


async def test_a_server_that_runs_gets_a_bucket_and_the_services_get_its_keys(
    s3_server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from folder_space import key_files
    from s3_server import chosen

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_access_key)
    for name in ("first", "again"):  # the bucket stays, and is there the second time
        with chosen(tmp_path / name, None, s3_server.endpoint) as bucket:
            assert bucket is not None
            given = {
                **key_files(tmp_path / name / "config", "BUCKET_CONFIG_PATH", bucket.config),
                **key_files(tmp_path / name / "secret", "BUCKET_SECRET_PATH", bucket.secret),
            }
        settings = read_bucket_settings(Path(given["BUCKET_CONFIG_PATH"]), Path(given["BUCKET_SECRET_PATH"]))
        assert settings.endpoint == s3_server.endpoint
        await CloudStore(settings).check()


def test_an_endpoint_needs_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3_server import chosen

    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(SystemExit, match="AWS_ACCESS_KEY_ID"), chosen(tmp_path, None, "http://127.0.0.1:1"):
        pass


def test_none_is_started_that_nobody_asked_for(tmp_path: Path) -> None:
    from s3_server import chosen

    with chosen(tmp_path / "other", None, None) as bucket:
        assert bucket is None
    assert not (tmp_path / "other").exists()
