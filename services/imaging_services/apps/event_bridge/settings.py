"""Settings of the event bridge; the names are the environment's."""

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from imaging_services.adapters.nats.policy import EventPolicy
from imaging_services.adapters.nats.settings import BridgeConnection, EventLogSettings
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.events.envelope import EVENT_TYPES
from imaging_services.domain.events.subjects import MailboxSubjects
from imaging_services.domain.nats_names import checked_root
from imaging_services.runtime import ServiceSettings


class Settings(EventLogSettings, BridgeConnection, ServiceSettings):
    """Carries events between clusters: a hub and its edges share the NATS server of ``NATS_URL``.

    What arrives is handed to the local event processor (``EVENTS_NATS_URL``, else ``K_SINK``). What is sent comes by
    POST and, where ``EVENTS_NATS_URL`` is set, from the local event log.
    """

    BRIDGE_ROLE: Literal["hub", "edge"] = Field(description="hub, or one of its edges")
    NATS_URL: str = Field(min_length=1, description="NATS server with JetStream that the hub and all edges share")
    NATS_STREAM_REPLICAS: int = Field(
        default=1, ge=1, le=5, description="copies of the mailboxes' streams in the NATS cluster of NATS_URL"
    )
    NATS_RETENTION_DAYS: float = Field(
        default=30, gt=0, description="events wait in a mailbox this long, days; existing mailboxes are only widened"
    )
    NATS_DEAD_LETTER_RETENTION_DAYS: float = Field(
        default=90, gt=0, description="dead letters of the mailboxes are kept, days"
    )
    NATS_MAX_BYTES: int = Field(
        default=0, ge=0, description="size limit of all mailboxes, bytes; the oldest events go first; 0 is no limit"
    )
    EDGE_MAILBOX_ID: str | None = Field(default=None, description="edge: id of its own mailbox")
    EDGE_LOCATION_CONFIG: Path | None = Field(
        default=None, description="hub: JSON file of one object, location name to mailbox id; read again when changed"
    )
    BRIDGE_EVENT_TYPES: str = Field(
        default=",".join(sorted(EVENT_TYPES)),
        description="types taken from the local event log, separated by commas; by POST every type is taken",
    )
    EVENTS_CONSUMER: str = Field(
        default="event-bridge",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="name of the durable consumer on the local event log; replicas of a bridge share it, two bridges "
        "must not",
    )
    BRIDGE_CONCURRENCY: int = Field(default=16, ge=1, description="events under way at once in each direction")
    INSECURE_SKIP_VERIFY: bool = Field(
        default=False, description="do not verify the TLS certificate of K_SINK; logged as a warning"
    )
    HTTP_HOST: str = Field(default="127.0.0.1", description="address that takes CloudEvents")
    HTTP_PORT: int = Field(default=8080, ge=0, le=65535, description="its port; 0 takes a free one")

    def check(self) -> None:
        """Raise ``SettingsError`` for what is missing or cannot work."""
        if self.BRIDGE_ROLE == "edge" and not self.EDGE_MAILBOX_ID:
            raise SettingsError("EDGE_MAILBOX_ID is not set: an edge needs the id of its mailbox")
        if self.BRIDGE_ROLE == "hub" and self.EDGE_LOCATION_CONFIG is None:
            raise SettingsError("EDGE_LOCATION_CONFIG is not set: a hub needs the file of locations and mailboxes")
        if not self.EVENTS_NATS_URL and not self.K_SINK:
            raise SettingsError("neither EVENTS_NATS_URL nor K_SINK is set: what arrives has no place to go")
        mailboxes = MailboxSubjects(checked_root(self.NATS_SUBJECT_ROOT))
        if self.EDGE_MAILBOX_ID:
            mailboxes.edge(self.EDGE_MAILBOX_ID)
        self.event_policy()

    def mailbox_policy(self) -> EventPolicy:
        """Limits of the mailboxes, which hub and edges share: what holds for the local event log is no wish about
        them. Tries of a delivery are alike. Raises ``SettingsError``."""
        return dataclasses.replace(
            self.event_policy(),
            retention=timedelta(days=self.NATS_RETENTION_DAYS),
            dead_letter_retention=timedelta(days=self.NATS_DEAD_LETTER_RETENTION_DAYS),
            max_bytes=self.NATS_MAX_BYTES,
            replicas=self.NATS_STREAM_REPLICAS,
            domain=self.NATS_DOMAIN or None,
        )

    @property
    def mailbox(self) -> str:
        """The own mailbox."""
        return "hub" if self.BRIDGE_ROLE == "hub" else str(self.EDGE_MAILBOX_ID)

    def event_types(self) -> frozenset[str]:
        """Types taken from the local event log."""
        return frozenset(name.strip() for name in self.BRIDGE_EVENT_TYPES.split(",") if name.strip())
