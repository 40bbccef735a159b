"""``DimseProxy``: carries DIMSE over NATS, in both directions."""

from typing import ClassVar, Literal

from pydantic import Field

from imaging_operator.specs.common import DeploymentGroup, Spec, WorkersField
from imaging_operator.specs.connections import (
    DimseListener,
    DimseTargetTls,
    Exposure,
    JetStreamDomains,
    Nats,
    StreamFields,
    SubjectRoot,
)
from imaging_operator.specs.model import Rule, absent
from imaging_operator.specs.status import ScaledStatus


class DimseProxySpec(Nats, JetStreamDomains, StreamFields, DimseListener, WorkersField, Spec):
    """One end of a pair: it answers local modalities, and delivers to its target what the other end receives."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"{absent('targetDimseHost')} || !has(self.applicationEntityTitle) || "
            "size(self.applicationEntityTitle) <= 16",
            "applicationEntityTitle is longer than 16 characters, so no target can have it",
        ),
    )

    application_entity_title: str = Field(
        default="",
        max_length=253,
        description="AE title of the target; associations that call this title are accepted too",
    )
    own_application_entity_title: str = Field(
        default="",
        max_length=16,
        description="AE title of the proxy itself, also used to call the target; empty: DIMSE",
    )
    target_dimse_host: str = Field(
        default="", description="host of the AE that gets the requests of the other end; empty: none"
    )
    target_dimse_port: int = Field(default=0, ge=0, le=65535, description="its port")
    target_tls: DimseTargetTls | None = Field(default=None, description="TLS towards it; absent: no TLS")
    nats_subject_root: SubjectRoot = Field(default="", description="first part of all subjects; empty: DIMSE")
    nats_subject_channel: Literal["", "A", "B"] = Field(
        default="A", description="channel of this end, A or B; the other end has the other one"
    )
    delivery_mode: Literal["durable", "confirmed"] = Field(
        default="durable",
        description="when a C-STORE succeeds: once NATS keeps the instance (durable), or once the other end has "
        "stored it (confirmed)",
    )
    service: Exposure | None = Field(default=None, description="how the Service <name>-dimse-proxy is published")
    proxy: DeploymentGroup = Field(default=DeploymentGroup(), description="the workload")

    @property
    def channel(self) -> str:
        """The channel's letter."""
        return self.nats_subject_channel or "A"

    @property
    def has_target(self) -> bool:
        """True when requests of the other end can be delivered; a proxy without a target only sends."""
        return bool(self.target_dimse_host and self.target_dimse_port)


class DimseProxyStatus(ScaledStatus):
    """Status of a DimseProxy."""

    dimse_endpoint: str | None = Field(default=None, description="host:port of the DICOM listener")
