"""``DimseIngestionService``: a DIMSE AE in the cluster that writes to a storage space."""

from typing import ClassVar

from pydantic import Field

from imaging_operator.specs.common import DeploymentGroup, EdiReference, Spec, WorkersField
from imaging_operator.specs.connections import (
    Bucket,
    DimseListener,
    Exposure,
    JetStreamDomains,
    Nats,
    StreamFields,
    SubjectRoot,
)
from imaging_operator.specs.model import Rule
from imaging_operator.specs.status import ScaledStatus


class DimseIngestionServiceSpec(
    EdiReference, Bucket, Nats, JetStreamDomains, StreamFields, DimseListener, WorkersField, Spec
):
    """A DIMSE AE fed over NATS by a remote DimseProxy, and by associations of its own when it is asked to listen."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.service) || (has(self.direct) && self.direct)", "service needs direct: true"),
    )

    provider_name: str = Field(
        default="",
        description="name of the storage space: the providerName of a DicomwebIngestionService of the same "
        "DicomEventDrivenIngestion; needed",
    )
    application_entity_title: str = Field(
        default="", max_length=16, description="AE title of this service; empty: DIMSE_INGESTION"
    )
    nats_subject_root: SubjectRoot = Field(default="", description="first part of all subjects; empty: DIMSE")
    direct: bool = Field(
        default=False,
        description="true: a Service <name>-dimse on port 11112 for associations from inside the cluster and, by "
        "service, from outside; NATS is then optional",
    )
    service: Exposure | None = Field(default=None, description="how that Service is published; only with direct")
    dimse_service: DeploymentGroup = Field(default=DeploymentGroup(), description="the workload")


class DimseIngestionServiceStatus(ScaledStatus):
    """Status of a DimseIngestionService."""

    dimse_endpoint: str | None = Field(default=None, description="host:port of the DICOM listener, when direct")
