"""The study binding's settings."""

from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from imaging_services.apps.study_binding.settings import Settings
from imaging_services.domain.errors import SettingsError
from imaging_services.runtime import load_settings
from imaging_services.subscription import consumer_name

FHIR = "https://fhir.example.org/ImagingStudy"


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings(Settings)


def test_fhir(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, FHIR_ENDPOINT=FHIR, WEBHOOK_ENDPOINT="", FHIR_TIME_ZONE="Europe/Berlin")
    assert settings.mode == "FHIR_ENDPOINT"
    assert settings.mapping.time_zone == ZoneInfo("Europe/Berlin")
    assert settings.basic() is None


@pytest.mark.parametrize("name", ["IMAGINGSTUDY_ENDPOINT", "IMAGING_STUDY_ENDPOINT"])
def test_both_spellings_of_the_address(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    settings = load(monkeypatch, FHIR_ENDPOINT=FHIR, **{name: "https://viewer"})
    assert settings.mapping.wado_base == "https://viewer"


def test_an_empty_spelling_does_not_hide_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"IMAGINGSTUDY_ENDPOINT": "", "IMAGING_STUDY_ENDPOINT": "https://viewer"}
    assert load(monkeypatch, FHIR_ENDPOINT=FHIR, **addresses).mapping.wado_base == "https://viewer"


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"FHIR_AUTH_USERNAME": "user", "FHIR_AUTH_PASSWORD": "hidden-1", "FHIR_AUTH_TOKEN": "hidden-2"}
    settings = load(monkeypatch, FHIR_ENDPOINT=FHIR, WEBHOOK_AUTH_TOKEN="hidden-3", **secrets)
    assert settings.basic() == ("user", "hidden-1")
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    ("environment", "ignored"),
    [
        ({"FHIR_AUTH_USERNAME": "user"}, ["FHIR_AUTH_USERNAME"]),
        ({"FHIR_AUTH_USERNAME": "user", "FHIR_AUTH_PASSWORD": ""}, ["FHIR_AUTH_USERNAME"]),
        ({"FHIR_AUTH_PASSWORD": "hidden"}, ["FHIR_AUTH_PASSWORD"]),
        ({"FHIR_AUTH_USERNAME": "user", "FHIR_AUTH_TOKEN": "hidden"}, []),
        ({}, []),
    ],
)
def test_half_a_login_is_ignored_and_said(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], ignored: list[str]
) -> None:
    settings = load(monkeypatch, FHIR_ENDPOINT=FHIR, **environment)
    with capture_logs() as logs:
        assert settings.basic() is None
    assert [each["ignored"] for each in logs if each["log_level"] == "warning"] == ignored
    assert "hidden" not in str(logs)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "no target of study revisions is set: set one of FHIR_ENDPOINT, WEBHOOK_ENDPOINT"),
        ({"FHIR_ENDPOINT": FHIR, "WEBHOOK_ENDPOINT": "http://hook"}, "FHIR_ENDPOINT and WEBHOOK_ENDPOINT are set"),
        ({"FHIR_ENDPOINT": FHIR, "SELECTOR": "north,("}, "SELECTOR"),
        ({"FHIR_ENDPOINT": FHIR, "FHIR_TIME_ZONE": "Mars/Base"}, "FHIR_TIME_ZONE"),
        ({"FHIR_ENDPOINT": FHIR, "FHIR_TIME_ZONE": "../etc/passwd"}, "FHIR_TIME_ZONE"),
        ({"FHIR_ENDPOINT": FHIR, "FHIR_UPDATE_BY": "magic"}, "FHIR_UPDATE_BY"),
        ({"FHIR_ENDPOINT": FHIR, "BINDING_NAME": "two words"}, "BINDING_NAME"),
        ({"FHIR_ENDPOINT": FHIR, "INSECURE_SKIP_VERIFY": "maybe"}, "INSECURE_SKIP_VERIFY"),
        ({"FHIR_ENDPOINT": "fhir.example.org/ImagingStudy"}, "FHIR_ENDPOINT"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load(monkeypatch, **environment)


def test_certificates_are_verified_unless_explicitly_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, FHIR_ENDPOINT=FHIR).INSECURE_SKIP_VERIFY is False
    assert load(monkeypatch, FHIR_ENDPOINT=FHIR, INSECURE_SKIP_VERIFY="").INSECURE_SKIP_VERIFY is False
    assert load(monkeypatch, FHIR_ENDPOINT=FHIR, INSECURE_SKIP_VERIFY="true").INSECURE_SKIP_VERIFY is True


def test_consumer_names(monkeypatch: pytest.MonkeyPatch) -> None:
    unnamed = load(monkeypatch, FHIR_ENDPOINT=FHIR)
    assert consumer_name(unnamed, "study-binding", "a") == consumer_name(unnamed, "study-binding", "a")
    assert consumer_name(unnamed, "study-binding", "a") != consumer_name(unnamed, "study-binding", "b")
    named = load(monkeypatch, FHIR_ENDPOINT=FHIR, EVENTS_CONSUMER="fhir-1")
    assert consumer_name(named, "study-binding", "a") == "fhir-1"
