"""The models of the seven specs: what they take, what they make of odd values, and how they say no."""

from typing import Any

import pytest
import yaml

from imaging_operator.errors import Wrong
from imaging_operator.specs.dicomweb_ingestion_service import DicomwebIngestionServiceSpec
from imaging_operator.specs.dimse_proxy import DimseProxySpec
from imaging_operator.specs.event_bridge import EventBridgeSpec
from imaging_operator.specs.event_driven_ingestion import LONGEST_QUIET_SECONDS, EventDrivenIngestionSpec
from imaging_operator.specs.examples import EXAMPLES
from imaging_operator.specs.resources import RESOURCES, Resource

REQUIRED = {"dicomEventDrivenIngestionName": "core", "role": "hub"}


def ids(resource: Resource) -> str:
    return resource.kind


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_only_what_the_interface_requires_is_required(resource: Resource) -> None:
    required = {info.alias for info in resource.spec.model_fields.values() if info.is_required()}
    expected = {
        "DicomEventDrivenIngestion": set(),
        "DimseProxy": set(),
        "DicomEventBridge": {"dicomEventDrivenIngestionName", "role"},
    }
    assert required == expected.get(resource.kind, {"dicomEventDrivenIngestionName"})


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_nulls_and_unknown_fields_count_as_absent(resource: Resource) -> None:
    nulls: dict[str, Any] = {str(info.alias): None for info in resource.spec.model_fields.values()}
    assert resource.spec.parse(nulls | REQUIRED | {"colour": "red"}) == resource.spec.parse(REQUIRED)


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_the_examples_are_read_field_by_field(resource: Resource) -> None:
    written = yaml.safe_load(EXAMPLES[resource.kind])["spec"]
    parsed = resource.spec.parse(written)
    assert parsed.model_dump(by_alias=True, exclude_unset=True, mode="json") == written


def test_a_missing_spec_is_an_empty_one() -> None:
    assert DimseProxySpec.parse(None) == DimseProxySpec.parse({})
    with pytest.raises(Wrong, match=r"^spec.dicomEventDrivenIngestionName: Field required$"):
        DicomwebIngestionServiceSpec.parse(None)


def test_every_wrong_field_is_named() -> None:
    with pytest.raises(Wrong) as refused:
        EventBridgeSpec.parse({"role": "spoke", "eventBridge": {"replicas": -1}, "dicomEventDrivenIngestionName": "a"})
    assert "spec.role: Input should be 'hub' or 'edge'" in str(refused.value)
    assert "spec.eventBridge.replicas: Input should be greater than or equal to 0" in str(refused.value)


@pytest.mark.parametrize(
    ("delay", "seconds"), [(None, None), (0, None), (-5, None), (1, 1), (45, 45), (10**9, LONGEST_QUIET_SECONDS)]
)
def test_the_quiet_time(delay: int | None, seconds: int | None) -> None:
    assert EventDrivenIngestionSpec.parse({"revisioningDelay": delay}).quiet_seconds == seconds


@pytest.mark.parametrize(
    ("spec", "has_target"),
    [
        ({}, False),
        ({"targetDimseHost": "pacs"}, False),
        ({"targetDimsePort": 104}, False),
        ({"targetDimseHost": "pacs", "targetDimsePort": 0}, False),
        ({"targetDimseHost": "pacs", "targetDimsePort": 104}, True),
    ],
)
def test_a_proxy_has_a_target_when_host_and_port_say_so(spec: dict[str, Any], has_target: bool) -> None:
    assert DimseProxySpec.parse(spec).has_target is has_target


@pytest.mark.parametrize(("given", "channel"), [(None, "A"), ("", "A"), ("A", "A"), ("B", "B")])
def test_the_channel(given: str | None, channel: str) -> None:
    assert DimseProxySpec.parse({"natsSubjectChannel": given}).channel == channel


def test_resources_of_a_workload_win_name_by_name() -> None:
    spec = DicomwebIngestionServiceSpec.parse(
        REQUIRED
        | {
            "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
            "wadoService": {"resources": {"requests": {"cpu": 2}, "limits": {"ephemeral-storage": "10Gi"}}},
        }
    )
    merged = spec.resources_of(spec.wado_service)
    assert merged.requests == {"cpu": 2, "memory": "1Gi"}
    assert merged.limits == {"memory": "2Gi", "ephemeral-storage": "10Gi"}
    assert spec.resources_of(spec.stow_service) == spec.resources
