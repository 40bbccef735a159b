"""Settings of the DIMSE proxy; the names are the environment's."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from imaging_services.adapters.dimse.listener_settings import ListenerVariables
from imaging_services.adapters.dimse.urgency_settings import UrgencyVariables
from imaging_services.adapters.nats.relay_settings import RelayVariables
from imaging_services.apps.dimse_proxy.edge.settings import EdgeVariables
from imaging_services.domain.errors import SettingsError
from imaging_services.runtime import ServiceSettings, WorkerVariables


class Settings(UrgencyVariables, EdgeVariables, ListenerVariables, RelayVariables, WorkerVariables, ServiceSettings):
    """A DIMSE AE whose requests travel over NATS to the other end, and the other end's to its target AE."""

    # The operator sets what a resource leaves out to the empty text.
    model_config = SettingsConfigDict(env_ignore_empty=True)

    DIMSE_DELIVERY_MODE: Literal["durable", "confirmed"] = Field(
        default="durable",
        description="when a C-STORE succeeds: kept by NATS on its way (durable), or stored at the far side (confirmed)",
    )
    DIMSE_ASSOCIATION_LEASE_SECONDS: float = Field(
        default=60, gt=0, description="the far side takes an association for open this long after a notice, seconds"
    )

    def check(self) -> None:
        """Raise ``SettingsError`` for what cannot work together."""
        self.listener_tls()
        self.target_tls()
        self.users()
        self.check_edge()
        if self.DIMSE_TARGET_HOST and not self.DIMSE_TARGET_PORT:
            raise SettingsError("DIMSE_TARGET_PORT is not set, but DIMSE_TARGET_HOST is: set the target's port")
