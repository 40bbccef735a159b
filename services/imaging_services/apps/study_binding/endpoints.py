"""Contained WADO-RS Endpoints of an ImagingStudy (FHIR R4 Endpoint)."""

from imaging_services.apps.study_binding.fhir_values import Json, fhir_text, stable_id
from imaging_services.domain.events.payloads import RevisionSeries

_CONNECTION_TYPE = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"


class Endpoints:
    """One Endpoint a series, and one for each archive that holds a part of the study; ids follow from addresses."""

    def __init__(self, study_instance_uid: str, wado_base: str) -> None:
        self._study_instance_uid = study_instance_uid
        self._wado_base = wado_base.rstrip("/")
        self._contained: dict[str, Json] = {}
        self._of_study: dict[str, Json] = {}

    @property
    def contained(self) -> list[Json]:
        """The Endpoint resources; each is referenced, as FHIR's rule dom-3 asks."""
        return list(self._contained.values())

    @property
    def of_study(self) -> list[Json]:
        """References for the study as a whole."""
        return list(self._of_study.values())

    def of_series(self, series: RevisionSeries) -> list[Json] | None:
        """References for a series, or None when nobody said where it can be fetched."""
        address = self._address(series)
        if not address:
            return None
        study_address, found, _ = address.rpartition("/series/")
        if found:
            self._of_study.setdefault(study_address, self._reference(study_address))
        return [self._reference(address)]

    def _address(self, series: RevisionSeries) -> str | None:
        if not self._wado_base:
            address = fhir_text(series.endpoint)
            return address if address and "://" in address else None  # a path alone leads nowhere
        _, found, path = (series.endpoint or "").rpartition("/studies/")
        if not found:
            path = f"{self._study_instance_uid}/series/{series.seriesInstanceUID.strip()}"
        return f"{self._wado_base}/studies/{path}"

    def _reference(self, address: str) -> Json:
        endpoint_id = stable_id("endpoint", address)
        self._contained.setdefault(endpoint_id, _endpoint(endpoint_id, address))
        return {"reference": f"#{endpoint_id}"}


def _endpoint(endpoint_id: str, address: str) -> Json:
    return {
        "resourceType": "Endpoint",
        "id": endpoint_id,
        "status": "active",
        "connectionType": {"system": _CONNECTION_TYPE, "code": "dicom-wado-rs"},
        "payloadType": [{"text": "DICOM WADO-RS"}],
        "payloadMimeType": ["application/dicom"],
        "address": address,
    }
