"""Settings of an edge, and what becomes of them in its NATS server's configuration."""

from pathlib import Path
from typing import Any

import pytest

from imaging_services.apps.dimse_proxy.settings import Settings
from imaging_services.cli.edge_checks import edge_checks
from imaging_services.domain.errors import SettingsError
from imaging_services.local.edge import check
from imaging_services.local.leaf_node import LeafNode


def settings(folder: Path, **more: Any) -> Settings:
    given = {"EDGE_HUB_URL": "hub.example.org", "EDGE_DOMAIN": "hospital-1", "EDGE_SPOOL_DIR": folder / "spool", **more}
    return Settings(EDGE=True, **given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"EDGE_HUB_URL": None}, "EDGE_HUB_URL is not set"),
        ({"EDGE_HUB_URL": "https://hub:7422"}, "EDGE_HUB_URL has 'https://hub:7422'"),
        ({"EDGE_HUB_URL": "tls://hub:port"}, "EDGE_HUB_URL has"),
        ({"EDGE_HUB_URL": "tls://me:secret@hub"}, "put it into EDGE_HUB_USER"),
        ({"EDGE_DOMAIN": None}, "EDGE_DOMAIN is not set"),
        ({"EDGE_DOMAIN": "hospital.1"}, "EDGE_DOMAIN is 'hospital.1'"),
        ({"EDGE_HUB_DOMAIN": "hospital-1"}, "are the same"),
        ({"EDGE_HUB_USER": "me"}, "EDGE_HUB_USER and EDGE_HUB_PASSWORD go together"),
        ({"EDGE_HUB_CA_FILE": Path("/nowhere.pem")}, "EDGE_HUB_CA_FILE is /nowhere.pem"),
        ({"DIMSE_NATS_URL": "nats://other"}, "DIMSE_NATS_URL is set"),
        ({"DIMSE_STREAM_MAX_BYTES": 5}, "EDGE_SPOOL_BYTES limits an edge"),
        ({"DIMSE_PORT": 0}, "DIMSE_PORT is 0"),
        ({"DIMSE_TARGET_HOST": "pacs", "DIMSE_TARGET_PORT": 104}, "EDGE_HUB_DOMAIN is not set"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=sentence):
        check(settings(tmp_path, **given))


async def test_a_disk_too_small_for_limit_and_reserve_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"EDGE_HUB_URL": "hub", "EDGE_DOMAIN": "h1", "EDGE_SPOOL_DIR": str(tmp_path), "EDGE_SPOOL_BYTES": "1" * 18}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="less than EDGE_SPOOL_BYTES and EDGE_DISK_RESERVE_BYTES together"):
        await dict(edge_checks())["edge spool"]()


def test_an_address_is_completed(tmp_path: Path) -> None:
    many = settings(tmp_path, EDGE_HUB_URL="hub, nats-leaf://[::1] ,wss://hub/leaf/,tls://hub:4443")
    assert many.hub_urls() == ["tls://hub:7422", "nats-leaf://[::1]:7422", "wss://hub:443/leaf", "tls://hub:4443"]


def test_the_server_listens_on_loopback_syncs_and_keeps_queues_to_itself(tmp_path: Path) -> None:
    secret = settings(tmp_path, EDGE_HUB_USER="h 1", EDGE_HUB_PASSWORD="p@ss", DIMSE_NATS_SUBJECT_ROOT="R")
    check(secret)
    node = LeafNode(secret)
    text = node.configuration()
    assert 'listen: "127.0.0.1:4222"' in text
    assert "sync_interval: always" in text
    assert "js_ack_fc_v2: true" in text
    assert '"urls": ["tls://h%201:p%40ss@hub.example.org:7422"]' in text
    for subject in ("R.B.store.*", "R.B.urgent.*", "R.A.end.*", "R.B.dead-letters", "$O.R-B-instances.>", "R.*.jobs.>"):
        assert text.count(f'"{subject}"') == 2, subject
    node.program()
    assert (tmp_path / "spool" / "nats.conf").stat().st_mode & 0o777 == 0o600
    assert node.password not in repr(node)
