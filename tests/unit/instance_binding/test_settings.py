"""The instance binding's settings."""

import pytest

from imaging_services.apps.instance_binding.settings import Settings
from imaging_services.domain.errors import SettingsError
from imaging_services.runtime import load_settings

STOW = "https://archive.example.org/dicom-web/studies"


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings(Settings)


@pytest.mark.parametrize(
    ("environment", "target"),
    [
        ({"STOW_ENDPOINT": STOW}, STOW),
        ({"WEBHOOK_ENDPOINT": "http://hook/x"}, "http://hook/x"),
        ({"DIMSE_TARGET_HOST": "pacs"}, "dimse://DIMSE@pacs:11112"),
        (
            {"DIMSE_TARGET_HOST": "pacs", "DIMSE_TARGET_PORT": "104", "DIMSE_TARGET_AE": "PACS", "STOW_ENDPOINT": ""},
            "dimse://PACS@pacs:104",
        ),
    ],
)
def test_targets(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], target: str) -> None:
    settings = load(monkeypatch, **environment)
    assert settings.target == target
    assert settings.DIMSE_AE == "STORESCU"


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "set one of STOW_ENDPOINT, DIMSE_TARGET_HOST, WEBHOOK_ENDPOINT"),
        ({"STOW_ENDPOINT": STOW, "DIMSE_TARGET_HOST": "pacs"}, "STOW_ENDPOINT and DIMSE_TARGET_HOST are set"),
        ({"STOW_ENDPOINT": "archive/studies"}, "STOW_ENDPOINT"),
        ({"STOW_ENDPOINT": STOW, "SELECTOR": "["}, "SELECTOR"),
        ({"DIMSE_TARGET_HOST": "pacs", "DIMSE_TARGET_PORT": "0"}, "DIMSE_TARGET_PORT"),
        ({"DIMSE_TARGET_HOST": "pacs", "DIMSE_TARGET_AE": "A" * 17}, "DIMSE_TARGET_AE"),
        ({"STOW_ENDPOINT": STOW, "TARGET_CONCURRENCY": "0"}, "TARGET_CONCURRENCY"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load(monkeypatch, **environment)


def test_tokens_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, STOW_ENDPOINT=STOW, STOW_AUTH_TOKEN="Bearer hidden", WADO_AUTH_TOKEN="Bearer hidden")
    assert "hidden" not in repr(settings)
    assert settings.STOW_AUTH_TOKEN.get_secret_value() == "Bearer hidden"
