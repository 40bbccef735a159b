"""The example of urgent studies on Kubernetes: the complete system's services, with settings that they have."""

from pathlib import Path
from typing import Any

import yaml

from imaging_operator.specs.common import Spec
from imaging_operator.specs.dicomweb_ingestion_service import DicomwebIngestionServiceSpec
from imaging_operator.specs.dimse_ingestion_service import DimseIngestionServiceSpec
from imaging_operator.specs.dimse_proxy import DimseProxySpec
from imaging_services.apps.dicomweb_ingestion.settings import Settings as DicomwebSettings
from imaging_services.apps.dimse_ingestion.settings import Settings as DimseIngestionSettings
from imaging_services.apps.dimse_proxy.settings import Settings as DimseProxySettings

EXAMPLES = Path(__file__).parents[3] / "examples" / "kubernetes"
KINDS: dict[str, tuple[type[Spec], Any]] = {
    "DimseProxy": (DimseProxySpec, DimseProxySettings),
    "DimseIngestionService": (DimseIngestionServiceSpec, DimseIngestionSettings),
    "DicomwebIngestionService": (DicomwebIngestionServiceSpec, DicomwebSettings),
}


def specs_of(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    documents = yaml.safe_load_all((EXAMPLES / name).read_text())
    return {(one["kind"], one["metadata"]["name"]): one.get("spec", {}) for one in documents}


def test_it_is_the_complete_system_with_urgent_studies() -> None:
    complete, urgent = specs_of("complete-system.yaml"), specs_of("urgent-studies.yaml")
    assert {kind for kind, _ in urgent} == set(KINDS)
    for key, spec in urgent.items():
        model, settings = KINDS[key[0]]
        given = {one.name: one.value for one in model.parse(spec).env}
        assert {**complete[key], **spec} == spec
        assert set(given) <= set(settings.model_fields)
        chosen = settings.model_construct(**given).urgency()
        assert chosen.procedure_priorities == {"STAT", "HIGH"}
