"""What a site decides about the ImagingStudy resource."""

from dataclasses import dataclass
from datetime import tzinfo


@dataclass(frozen=True, slots=True)
class Mapping:
    """From the settings ``IMAGINGSTUDY_ENDPOINT`` and ``FHIR_*``; the defaults invent nothing."""

    wado_base: str = ""
    time_zone: tzinfo | None = None
    patient_id_system: str = ""
    accession_number_system: str = ""
    contained_patient: bool = False
