"""``DicomStudyBinding``: sends every study revision to a target."""

from pydantic import Field

from imaging_operator.specs.common import EdiReference, KnativeField, ServiceGroup, Spec
from imaging_operator.specs.connections import TargetTls
from imaging_operator.specs.model import ObjectName
from imaging_operator.specs.status import Status


class StudyBindingSpec(KnativeField, EdiReference, Spec):
    """A subscription to every study revision."""

    binding_config_name: ObjectName = Field(
        default="", description="ConfigMap whose keys become the binding's environment (FHIR_ENDPOINT ...); needed"
    )
    binding_secret_name: ObjectName = Field(
        default="", description="Secret whose keys become the binding's environment; needed, may be empty"
    )
    study_binding: ServiceGroup = Field(
        default=ServiceGroup(),
        description="the binding; its default image posts FHIR R4 ImagingStudy, or the event to a webhook",
    )
    target_tls: TargetTls | None = Field(default=None, description="TLS towards the target")


class StudyBindingStatus(Status):
    """Status of a DicomStudyBinding."""

    target: str | None = Field(default=None, description="where the binding sends to")
    consumer: str | None = Field(default=None, description="durable consumer of the event log; absent under Knative")
