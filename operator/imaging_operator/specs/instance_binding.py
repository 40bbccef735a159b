"""``DicomInstanceBinding``: sends every new instance to a target."""

from pydantic import Field

from imaging_operator.specs.common import EdiReference, KnativeField, ServiceGroup, Spec
from imaging_operator.specs.connections import TargetTls
from imaging_operator.specs.model import ObjectName
from imaging_operator.specs.status import Status


class InstanceBindingSpec(KnativeField, EdiReference, Spec):
    """A subscription to every newly available instance."""

    binding_config_name: ObjectName = Field(
        default="", description="ConfigMap whose keys become the binding's environment (STOW_ENDPOINT ...); needed"
    )
    binding_secret_name: ObjectName = Field(
        default="", description="Secret whose keys become the binding's environment; needed, may be empty"
    )
    instance_binding: ServiceGroup = Field(
        default=ServiceGroup(),
        description="the binding; its default image forwards by STOW-RS, C-STORE or webhook, as the ConfigMap says",
    )
    target_tls: TargetTls | None = Field(default=None, description="TLS towards the target")


class InstanceBindingStatus(Status):
    """Status of a DicomInstanceBinding."""

    target: str | None = Field(default=None, description="where the binding sends to")
    consumer: str | None = Field(default=None, description="durable consumer of the event log; absent under Knative")
