"""``DicomEventBridge``: relays events between clusters over JetStream."""

from typing import ClassVar, Literal

from pydantic import Field

from imaging_operator.specs.common import DeploymentGroup, EdiReference, Spec
from imaging_operator.specs.connections import JetStreamDomainField, Nats, StreamReplicas, SubjectRoot
from imaging_operator.specs.model import Rule, absent
from imaging_operator.specs.status import ScaledStatus


class EventBridgeSpec(EdiReference, Nats, JetStreamDomainField, StreamReplicas, Spec):
    """A hub, or one of its edges."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(f"self.role != 'edge' || !{absent('edgeMailbox')}", "edgeMailbox is needed when role is edge"),
        Rule(
            f"self.role != 'edge' || {absent('edgeMailbox')} || "
            "(self.edgeMailbox != 'hub' && !self.edgeMailbox.matches('[\\\\s*>]'))",
            "edgeMailbox is part of a NATS subject: not hub, and without spaces, * and >",
        ),
    )

    role: Literal["hub", "edge"] = Field(description="hub, or one of its edges")
    edge_mailbox: str = Field(
        default="",
        max_length=200,
        description="mailbox id of this edge, one of those in the hub's edge locations; needed when role is edge",
    )
    nats_subject_root: SubjectRoot = Field(default="", description="first part of all subjects; empty: events")
    event_bridge: DeploymentGroup = Field(default=DeploymentGroup(), description="the workload")


class EventBridgeStatus(ScaledStatus):
    """Status of a DicomEventBridge."""

    bridge_endpoint: str | None = Field(default=None, description="URL that takes CloudEvents for the other side")
