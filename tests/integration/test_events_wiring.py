"""Which sink and which log the environment chooses."""

import pytest
from pydantic import Field

from imaging_services.adapters.http.sink import HttpEventSink
from imaging_services.adapters.nats.policy import EventPolicy
from imaging_services.adapters.nats.settings import EventLogSettings
from imaging_services.adapters.nats.sink import NatsEventSink
from imaging_services.domain.errors import SettingsError
from imaging_services.runtime import ServiceSettings, load_settings
from imaging_services.wiring.events import open_event_log, open_sink
from support.events import an_event
from support.servers import Nats


class Settings(EventLogSettings, ServiceSettings):
    """As an app's."""

    OWN: int = Field(default=1, description="something of the app's own")


async def test_nats_wins_over_k_sink(nats_server: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTS_NATS_URL", nats_server.url)
    monkeypatch.setenv("K_SINK", "http://127.0.0.1:1/")
    settings = load_settings(Settings)
    async with open_sink(settings) as sink:
        assert isinstance(sink, NatsEventSink)
    async with open_event_log(settings) as log:
        await log.append([an_event()])


async def test_k_sink_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_SINK", "http://127.0.0.1:1/")
    async with open_sink(load_settings(Settings)) as sink:
        assert isinstance(sink, HttpEventSink)


async def test_neither_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(Settings)
    with pytest.raises(SettingsError, match="set EVENTS_NATS_URL or K_SINK"):
        async with open_sink(settings):
            pass
    with pytest.raises(SettingsError, match="EVENTS_NATS_URL is not set"):
        async with open_event_log(settings):
            pass


def test_defaults_of_the_settings_are_those_of_the_policy() -> None:
    assert load_settings(Settings).event_policy() == EventPolicy()


@pytest.mark.parametrize("delays", ["", "1,,2", "soon", "0", "-1", "nan"])
def test_wrong_delays_are_named(delays: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTS_RETRY_DELAYS_SECONDS", delays)
    with pytest.raises(SettingsError, match="retry delays"):
        load_settings(Settings).event_policy()
