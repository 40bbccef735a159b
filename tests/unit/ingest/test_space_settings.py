"""Settings of storage spaces: every key of the specification, and what is refused."""

from pathlib import Path

import pytest

from imaging_services.adapters.s3.folder import FolderStore
from imaging_services.adapters.s3.settings import BucketSettings, read_bucket_settings
from imaging_services.adapters.s3.space import open_space, space_of
from imaging_services.domain.errors import SettingsError

S3 = {"BUCKET_HOST": "s3.example.org", "BUCKET_PORT": "443", "BUCKET_REGION": "eu-west-1", "BUCKET_NAME": "images"}
KEYS = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "secret"}
AZURE = {
    "AZURE_STORAGE_CONNECTION_STRING": "https://account.blob.core.windows.net",
    "AZURE_CONTAINER_NAME": "images",
    "AZURE_STORAGE_ACCOUNT_NAME": "account",
    "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0",
}


def mount(tmp_path: Path, config: dict[str, str], secret: dict[str, str] | None = None) -> tuple[Path, Path]:
    for name, values in (("config", config), ("secret", secret or {})):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "..2026_01_01").mkdir()  # as Kubernetes mounts them
        (directory / "..data").symlink_to("..2026_01_01")
        for key, value in values.items():
            (directory / key).write_text(f" {value}\n")
    return tmp_path / "config", tmp_path / "secret"


def test_an_object_bucket_claim_is_used_as_it_is(tmp_path: Path) -> None:
    claim = {
        **S3,
        "BUCKET_HOST": "rook-ceph-rgw.rook.svc",
        "BUCKET_PORT": "80",
        "BUCKET_REGION": "",
        "BUCKET_SUBREGION": "",
    }
    settings = read_bucket_settings(*mount(tmp_path, claim, KEYS))
    assert settings.provider == "s3"
    assert settings.endpoint == "http://rook-ceph-rgw.rook.svc"
    assert settings.BUCKET_REGION == "us-east-1"
    assert settings.BUCKET_SUBREGION is None
    assert not settings.virtual_hosted
    assert space_of(settings).bucket_name == "images"


@pytest.mark.parametrize(
    ("host", "port", "endpoint"),
    [
        ("s3.example.org", "443", "https://s3.example.org"),
        ("s3.example.org", "80", "http://s3.example.org"),
        ("s3.example.org", "9000", "https://s3.example.org:9000"),
        ("http://s3.example.org", "9000", "http://s3.example.org:9000"),
        ("https://s3.example.org/", "80", "https://s3.example.org:80"),
        ("http://s3.example.org:9000", "", "http://s3.example.org:9000"),
        ("s3.example.org", "", "https://s3.example.org"),
        ("http://[::1]", "9000", "http://[::1]:9000"),
    ],
)
def test_host_and_port_make_the_endpoint(tmp_path: Path, host: str, port: str, endpoint: str) -> None:
    settings = read_bucket_settings(*mount(tmp_path, {**S3, "BUCKET_HOST": host, "BUCKET_PORT": port}, KEYS))
    assert settings.endpoint == endpoint
    space_of(settings)


@pytest.mark.parametrize(
    ("host", "bucket", "style", "virtual"),
    [
        ("minio.local", "images", "auto", False),
        ("s3.eu-west-1.amazonaws.com", "images", "auto", True),
        ("s3.eu-west-1.amazonaws.com", "north.images", "auto", False),
        ("s3.eu-west-1.amazonaws.com", "images", "path", False),
        ("minio.local", "images", "virtual", True),
    ],
)
def test_addressing_is_path_style_unless_amazon_or_asked_for(host: str, bucket: str, style: str, virtual: bool) -> None:
    settings = BucketSettings(BUCKET_HOST=host, BUCKET_NAME=bucket, BUCKET_ADDRESSING_STYLE=style)
    assert settings.virtual_hosted is virtual


def test_azure(tmp_path: Path) -> None:
    space = open_space(*mount(tmp_path, AZURE))
    assert space.bucket_name is None


def test_s3_comes_before_azure(tmp_path: Path) -> None:
    assert read_bucket_settings(*mount(tmp_path, {**S3, **AZURE}, KEYS)).provider == "s3"


def test_a_local_folder_only_by_its_key(tmp_path: Path) -> None:
    config, _ = mount(tmp_path, {"LOCAL_STORAGE_PATH": str(tmp_path)})
    assert isinstance(open_space(config), FolderStore)
    assert isinstance(open_space(config, tmp_path / "no-secret"), FolderStore)


@pytest.mark.parametrize(
    ("config", "secret", "complaint"),
    [
        ({}, {}, "no storage space: set one of BUCKET_HOST"),
        ({"BUCKET_HOST": "", "BUCKET_NAME": "images"}, KEYS, "no storage space"),
        ({"BUCKET_HOTS": "s3.example.org", "BUCKET_NAME": "images"}, KEYS, "no storage space"),
        ({"BUCKET_HOST": "s3.example.org"}, KEYS, "BUCKET_HOST needs BUCKET_NAME"),
        ({**S3, "BUCKET_PORT": "https"}, KEYS, "BUCKET_PORT"),
        ({**S3, "BUCKET_PORT": "70000"}, KEYS, "BUCKET_PORT"),
        ({**S3, "BUCKET_ADDRESSING_STYLE": "dns"}, KEYS, "BUCKET_ADDRESSING_STYLE"),
        (S3, {"AWS_ACCESS_KEY_ID": "AK"}, "go together"),
        ({**S3, "LOCAL_STORAGE_PATH": "/data"}, KEYS, "exclude each other"),
        ({"AZURE_STORAGE_CONNECTION_STRING": "https://x"}, {}, "needs AZURE_CONTAINER_NAME"),
        ({"LOCAL_STORAGE_PATH": "/does/not/exist"}, {}, "not a directory"),
        ({**S3, "BUCKET_CA_FILE": "/does/not/exist"}, KEYS, "BUCKET_CA_FILE"),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    tmp_path: Path, config: dict[str, str], secret: dict[str, str], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        open_space(*mount(tmp_path, config, secret))
    assert "secret" not in str(caught.value).replace(str(tmp_path), "")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="BUCKET_CONFIG_PATH"):
        open_space(tmp_path / "absent", tmp_path)
    config, _ = mount(tmp_path, S3)
    with pytest.raises(SettingsError, match="BUCKET_SECRET_PATH"):
        open_space(config, tmp_path / "absent")


def test_unknown_keys_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_bucket_settings(*mount(tmp_path, {**S3, "BUCKET_SSL": "true"}, KEYS))
    assert "BUCKET_SSL" in capsys.readouterr().out


def test_secrets_are_masked() -> None:
    assert "topsecret" not in repr(
        BucketSettings(BUCKET_HOST="h", BUCKET_NAME="b", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="topsecret")
    )


@pytest.mark.parametrize(
    ("keys", "safe"),
    [
        ({"BUCKET_HOST": "https://s3.example.org"}, True),
        ({"BUCKET_HOST": "https://s3.example.org", "BUCKET_SKIP_VERIFY": True}, False),
        ({"BUCKET_HOST": "http://s3.example.org"}, False),
        ({"BUCKET_HOST": "http://127.0.0.1.example.org"}, False),
        ({"BUCKET_HOST": "http://127.0.0.1:9000"}, True),
        ({"BUCKET_HOST": "http://[::1]:9000"}, True),
    ],
)
def test_bodies_are_signed_wherever_they_could_be_changed_on_the_way(keys: dict[str, object], safe: bool) -> None:
    assert BucketSettings(BUCKET_NAME="images", **keys).is_tamper_proof is safe
