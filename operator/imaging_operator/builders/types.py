"""What builders are given: the resource that owns the objects, and the operator's settings."""

from typing import Any, Protocol

Json = dict[str, Any]


class Owner(Protocol):
    """The resource that the objects are made for; ``kinds.common.Wanted`` is one."""

    @property
    def kind(self) -> str:
        """Its kind."""
        ...

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def namespace(self) -> str:
        """Its namespace, and that of everything made for it."""
        ...


class ClusterSettings(Protocol):
    """What builders look up in the operator's settings."""

    @property
    def CLUSTER_DOMAIN(self) -> str:  # noqa: N802 - as the environment's variable
        """Domain of the cluster's DNS."""
        ...

    @property
    def IMAGE(self) -> str:  # noqa: N802
        """Image of every component whose resource names none."""
        ...
