"""Subscribers as the command line names them."""

import pytest

from imaging_services.domain.errors import SettingsError
from imaging_services.local.bindings import instance_binding, parse_dimse, study_binding


@pytest.mark.parametrize(
    ("target", "environment"),
    [
        ("http://pacs/dicom-web/studies", {"STOW_ENDPOINT": "http://pacs/dicom-web/studies"}),
        ("https://pacs/studies/", {"STOW_ENDPOINT": "https://pacs/studies/"}),
        ("stow+https://pacs/any", {"STOW_ENDPOINT": "https://pacs/any"}),
        ("http://hook:9000/", {"WEBHOOK_ENDPOINT": "http://hook:9000/"}),
        ("webhook+http://hook/studies", {"WEBHOOK_ENDPOINT": "http://hook/studies"}),
        (
            "dimse://ORTHANC@127.0.0.1:4242",
            {"DIMSE_TARGET_AE": "ORTHANC", "DIMSE_TARGET_HOST": "127.0.0.1", "DIMSE_TARGET_PORT": "4242"},
        ),
    ],
)
def test_instance_bindings(target: str, environment: dict[str, str]) -> None:
    binding = instance_binding(target)
    assert (binding.component, binding.environment) == ("instance-binding", environment)


@pytest.mark.parametrize(
    ("target", "environment"),
    [
        ("fhir+http://fhir/ImagingStudy", {"FHIR_ENDPOINT": "http://fhir/ImagingStudy"}),
        ("fhir+https://fhir/ImagingStudy", {"FHIR_ENDPOINT": "https://fhir/ImagingStudy"}),
        ("http://hook/", {"WEBHOOK_ENDPOINT": "http://hook/"}),
    ],
)
def test_study_bindings(target: str, environment: dict[str, str]) -> None:
    binding = study_binding(target)
    assert (binding.component, binding.environment) == ("study-binding", environment)


@pytest.mark.parametrize("target", ["", "pacs", "ftp://pacs", "fhir+ftp://x", "dimse://127.0.0.1:104", "http://"])
def test_what_is_no_subscriber(target: str) -> None:
    with pytest.raises(SettingsError):
        instance_binding(target)
    with pytest.raises(SettingsError):
        study_binding(target)


def test_dimse_addresses() -> None:
    assert parse_dimse("PACS@10.0.0.1:104") == ("PACS", "10.0.0.1", 104)
    assert parse_dimse("PACS@host") == ("PACS", "host", 11112)
    for wrong in ("host:104", "PACS@host:port", "PACS@host:70000", "SEVENTEEN_LETTERS@host:104"):
        with pytest.raises(SettingsError, match="AE@host:port"):
            parse_dimse(wrong)
