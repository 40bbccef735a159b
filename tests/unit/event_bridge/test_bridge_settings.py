"""What stops the event bridge at its start, and the sentence that says so."""

from datetime import timedelta
from pathlib import Path

import pytest

from imaging_services.apps.event_bridge.locations import EdgeLocations
from imaging_services.apps.event_bridge.main import main
from imaging_services.apps.event_bridge.settings import Settings
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.events.subjects import MailboxSubjects
from imaging_services.runtime import Lifecycle, load_settings

_EDGE = {"BRIDGE_ROLE": "edge", "NATS_URL": "nats://127.0.0.1:1", "EDGE_MAILBOX_ID": "north", "K_SINK": "http://x/"}
_HUB = {
    "BRIDGE_ROLE": "hub",
    "NATS_URL": "nats://127.0.0.1:1",
    "EDGE_LOCATION_CONFIG": "/nowhere",
    "K_SINK": "http://x/",
}


@pytest.mark.parametrize(
    ("base", "change", "sentence"),
    [
        (_EDGE, {"EDGE_MAILBOX_ID": None}, "EDGE_MAILBOX_ID is not set"),
        (_EDGE, {"EDGE_MAILBOX_ID": "a b"}, "mailbox id 'a b'"),
        (_EDGE, {"EDGE_MAILBOX_ID": "hub"}, "mailbox id 'hub'"),
        (_EDGE, {"K_SINK": None}, "neither EVENTS_NATS_URL nor K_SINK"),
        (_EDGE, {"NATS_SUBJECT_ROOT": "a b"}, "subject root 'a b'"),
        (_EDGE, {"EVENTS_RETRY_DELAYS_SECONDS": "soon"}, "retry delays 'soon'"),
        (_HUB, {"EDGE_LOCATION_CONFIG": None}, "EDGE_LOCATION_CONFIG is not set"),
        (_HUB, {}, "/nowhere cannot be read"),
    ],
)
async def test_wrong_settings_stop_the_start(
    base: dict[str, str], change: dict[str, str | None], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**base, **change}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=sentence):
        await main(load_settings(Settings), Lifecycle())


@pytest.mark.parametrize(("name", "value"), [("BRIDGE_ROLE", "spoke"), ("BRIDGE_ROLE", None), ("NATS_URL", None)])
def test_wrong_variables_are_named(name: str, value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for each, setting in {**_EDGE, name: value}.items():
        if setting is not None:
            monkeypatch.setenv(each, setting)
    with pytest.raises(SettingsError, match=name):
        load_settings(Settings)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not a JSON file"),
        ("[]", "is not an object"),
        ('{"North": 7}', "is not an object"),
        ('{"North": "n o"}', "mailbox id 'n o'"),
    ],
)
def test_a_wrong_location_file_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "locations"
    path.write_text(content)
    with pytest.raises(SettingsError, match=sentence):
        EdgeLocations(path, MailboxSubjects("events"))


def test_the_mailboxes_have_limits_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is shared: what the local event log wants may be more than it has."""
    local = {"EVENTS_REPLICAS": "3", "EVENTS_RETENTION_DAYS": "60", "EVENTS_MAX_BYTES": "7", "EVENTS_MAX_TRIES": "4"}
    for name, value in {**_EDGE, **local}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(Settings)
    log, mailboxes = settings.event_policy(), settings.mailbox_policy()
    assert (log.replicas, log.retention, log.max_bytes) == (3, timedelta(days=60), 7)
    assert (mailboxes.replicas, mailboxes.retention, mailboxes.max_bytes) == (1, timedelta(days=30), 0)
    assert mailboxes.max_tries == 4


def test_limits_of_the_mailboxes_are_set_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {
        "NATS_STREAM_REPLICAS": "5",
        "NATS_RETENTION_DAYS": "2",
        "NATS_DEAD_LETTER_RETENTION_DAYS": "3",
        "NATS_MAX_BYTES": "9",
    }
    for name, value in {**_EDGE, **own}.items():
        monkeypatch.setenv(name, value)
    found = load_settings(Settings).mailbox_policy()
    assert (found.replicas, found.max_bytes) == (5, 9)
    assert (found.retention, found.dead_letter_retention) == (timedelta(days=2), timedelta(days=3))
