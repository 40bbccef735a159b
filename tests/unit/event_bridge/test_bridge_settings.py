"""What stops the event bridge at its start, and the sentence that says so."""

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
