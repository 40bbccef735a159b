"""``DicomwebIngestionService``: a storage space with STOW-RS, WADO-RS and QIDO-RS in front."""

from typing import ClassVar

from pydantic import Field

from imaging_operator.specs.common import EdiReference, KnativeField, ServiceGroup, Spec, WorkersField
from imaging_operator.specs.connections import Bucket
from imaging_operator.specs.model import Model, ObjectName, Rule
from imaging_operator.specs.status import Status


class Ingress(Model):
    """An Ingress with a host of its own for the DICOMweb services."""

    host: str = Field(
        min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", description="public host name"
    )
    class_name: ObjectName = Field(default="", description="ingressClassName; empty: the cluster's default")
    tls_secret_name: ObjectName = Field(
        default="", description="Secret of type kubernetes.io/tls for the host; empty: plain HTTP"
    )
    annotations: dict[str, str] = Field(
        default={}, description="annotations of the Ingress, for instance its controller's body size limit"
    )


class DicomwebIngestionServiceSpec(KnativeField, EdiReference, Bucket, WorkersField, Spec):
    """A storage space and its DICOMweb services."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.knative) && self.knative) || !has(self.ingress)",
            "ingress is not used with knative: true, Knative has routes of its own",
        ),
    )

    provider_name: str = Field(
        default="", description="name of the storage space; tags every instance, scopes every query; empty: default"
    )
    stow_service: ServiceGroup = Field(default=ServiceGroup(), description="STOW-RS")
    wado_service: ServiceGroup = Field(default=ServiceGroup(), description="WADO-RS and QIDO-RS")
    ingress: Ingress | None = Field(
        default=None,
        description="publishes STOW-RS (/stow-rs), WADO-RS and QIDO-RS (/wado-rs, /dicomweb) at a host of its own; "
        "absent: no Ingress",
    )
    allow_delete: bool = Field(
        default=False,
        description="true: whoever reaches the WADO-RS service may DELETE studies, series and instances there; not "
        "where the DicomEventDrivenIngestion is on Knative, whose broker does not say what is recorded",
    )
    external_endpoint: str = Field(
        default="",
        max_length=2048,
        pattern=r"^(https?://[^\s?#]+)?$",
        description="public base URL of the DICOMweb services, without /wado-rs, where something else publishes them "
        "(a Gateway, a Route, a proxy); empty: that of ingress, else the cluster-local one",
    )


class DicomwebIngestionServiceStatus(Status):
    """Status of a DicomwebIngestionService."""

    wado_service_internal_endpoint: str | None = Field(
        default=None, description="cluster-local base URL of WADO-RS and QIDO-RS, without /wado-rs"
    )
    wado_service_external_endpoint: str | None = Field(
        default=None, description="public base URL of WADO-RS and QIDO-RS, without /wado-rs"
    )
    stow_service_internal_endpoint: str | None = Field(
        default=None, description="cluster-local base URL of STOW-RS, without /stow-rs"
    )
    stow_service_external_endpoint: str | None = Field(
        default=None, description="public base URL of STOW-RS, without /stow-rs"
    )
