"""``allowDelete`` of a DicomwebIngestionService."""

from typing import Any

import pytest

from imaging_operator.errors import Wrong
from imaging_operator.kinds import KINDS
from imaging_operator.kinds.common import Json
from imaging_services.apps.dicomweb_ingestion.settings import Settings
from support.operator_kinds import case, wanted


def build(name: str, **spec: Any) -> list[Json]:
    """A case with other members of the spec."""
    resource, *others = case(name).documents()
    resource["spec"] |= spec
    return list(KINDS[resource["kind"]].build(wanted(resource, others, case(name).features), case(name).settings))


@pytest.mark.parametrize("spec", [{}, {"knative": False}], ids=["on-knative", "plain-behind-a-broker"])
def test_nothing_is_deleted_where_no_processor_says_that_it_is_recorded(spec: dict[str, Any]) -> None:
    name = "knative/dicomweb-ingestion-service"
    assert build(name, **spec)
    with pytest.raises(
        Wrong, match="allowDelete: events of DicomEventDrivenIngestion core go through a Knative broker"
    ):
        build(name, allowDelete=True, **spec)


def test_the_part_that_reads_deletes_where_that_is_allowed() -> None:
    told = {}
    for each in build("plain/dicomweb-ingestion-service", allowDelete=True):
        if each["kind"] == "Deployment":
            variables = each["spec"]["template"]["spec"]["containers"][0]["env"]
            told[each["metadata"]["name"]] = {one["name"]: one.get("value") for one in variables}
    assert {name: values.get("DICOMWEB_DELETE") for name, values in told.items()} == {
        "space1-stow": None,
        "space1-wado": "true",
    }
    Settings.model_validate({**told["space1-wado"], "EVENTS_NATS_AUTH_TOKEN": None}).check()
