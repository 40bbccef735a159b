"""What all kinds report in their status."""

from typing import Literal

from pydantic import Field

from imaging_operator.specs.model import Int32, Int64, Model


class Condition(Model):
    """A standard condition (metav1.Condition)."""

    type: str = Field(
        max_length=316,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        description="Ready, Reconciled or ReferencesResolved",
    )
    status: Literal["True", "False", "Unknown"] = Field(description="whether it holds")
    observed_generation: Int64 | None = Field(
        default=None, ge=0, description="generation of the resource that was looked at"
    )
    last_transition_time: str = Field(json_schema_extra={"format": "date-time"}, description="when status changed last")
    reason: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="one word for machines",
    )
    message: str = Field(max_length=32768, description="text for people")


class Status(Model):
    """The status that all kinds have (section 1.10 of the interface)."""

    phase: str = Field(
        description="Initializing: not everything is ready. Reconciling: everything is ready. Failing: see message"
    )
    message: str = Field(description="text for people; the error when phase is Failing")
    ready: bool = Field(description="true when everything is ready")
    secondary_resources: dict[str, tuple[str, ...]] = Field(
        default={}, description="kind to names of the objects that this resource uses and made"
    )
    observed_generation: Int64 | None = Field(
        default=None, ge=0, description="generation of the resource that this status is about"
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Ready, Reconciled and ReferencesResolved, as Kubernetes' own resources report them",
    )


class ScaledStatus(Status):
    """Of kinds with a scale subresource."""

    replicas: Int32 | None = Field(default=None, ge=0, description="pods that exist")
    selector: str | None = Field(default=None, description="label selector of the pods, as text")
