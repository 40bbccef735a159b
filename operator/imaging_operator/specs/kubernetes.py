"""Shapes that are Kubernetes' own, as far as the seven kinds use them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from imaging_operator.specs.model import Int64, Model

QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
Quantity = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True, "pattern": QUANTITY})]


class LocalReference(Model):
    """An object in the same namespace."""

    name: str = Field(default="", description="name of the object")


class Resources(Model):
    """Compute resources of a container."""

    requests: dict[str, Quantity] = Field(default={}, description="what is reserved: cpu, memory, ephemeral-storage")
    limits: dict[str, Quantity] = Field(default={}, description="what may be used: cpu, memory, ephemeral-storage")

    @classmethod
    def merged(cls, *layers: "Resources | None") -> "Resources":
        """One set out of several; later ones win, name by name."""
        requests: dict[str, Quantity] = {}
        limits: dict[str, Quantity] = {}
        for layer in filter(None, layers):
            requests |= layer.requests
            limits |= layer.limits
        return cls(requests=requests, limits=limits)


class Toleration(Model):
    """A taint that pods tolerate."""

    key: str | None = Field(default=None, description="key of the taint; absent with operator Exists: all taints")
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="how value is compared; Equal when absent"
    )
    value: str | None = Field(default=None, description="value of the taint")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="effect of the taint; absent: every effect"
    )
    toleration_seconds: Int64 | None = Field(
        default=None, description="how long a NoExecute taint is tolerated, seconds; absent: for ever"
    )


class EnvironmentVariable(Model):
    """A variable of a container's environment."""

    name: str = Field(min_length=1, max_length=253, description="name of the variable")
    value: str = Field(default="", description="its value")


Affinity = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
