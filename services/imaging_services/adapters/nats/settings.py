"""Connection settings of NATS, shared by the relay, the event log and the event bridge."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, SecretStr

from imaging_services.adapters.nats.policy import RETRY_DELAYS, EventPolicy, parse_delays
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.events.subjects import EventSubjects


class NatsSettings(BaseModel):
    """How to reach a NATS server. Apps fill it from their own variables (``DIMSE_NATS_URL``, ``NATS_URL``, ...)."""

    url: str = Field(description="server, or several separated by commas; a missing scheme means nats://")
    tls_enabled: bool = Field(default=False, description="TLS towards NATS; certificates are verified")
    tls_ca_file: Path | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the system's"
    )
    tls_cert_file: Path | None = Field(default=None, description="PEM client certificate, for servers that ask for one")
    tls_key_file: Path | None = Field(default=None, description="PEM key of the client certificate")
    auth_token: SecretStr | None = Field(
        default=None, description="JWT: sent as password; the user is the last part of its sub claim"
    )
    subject_root: str = Field(
        default="DIMSE", description="first token of all subjects; inboxes lie under <root>._INBOX"
    )
    reply_timeout_seconds: float = Field(default=60, gt=0, description="wait for a reply, seconds")
    name: str = Field(default="imaging", description="connection name shown by the server's monitoring")


def connection_settings(variables: BaseModel, prefix: str, name: str, **more: Any) -> NatsSettings:
    """The connection whose variables begin with ``prefix``; ``name`` shows in the server's monitoring."""
    fields = ("tls_enabled", "tls_ca_file", "tls_cert_file", "tls_key_file", "auth_token", "subject_root")
    values = {field: getattr(variables, prefix + field.upper()) for field in fields}
    return NatsSettings(url=getattr(variables, f"{prefix}URL"), name=name, **values, **more)


class RelayConnection(BaseModel):
    """The NATS server of the DIMSE relay: mix into ``Settings``."""

    DIMSE_NATS_URL: str | None = Field(
        default=None, description="NATS server, or several separated by commas; a missing scheme means nats://"
    )
    DIMSE_NATS_TLS_ENABLED: bool = Field(default=False, description="TLS towards NATS; certificates are verified")
    DIMSE_NATS_TLS_CA_FILE: Path | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the system's"
    )
    DIMSE_NATS_TLS_CERT_FILE: Path | None = Field(default=None, description="PEM client certificate")
    DIMSE_NATS_TLS_KEY_FILE: Path | None = Field(default=None, description="PEM key of the client certificate")
    DIMSE_NATS_AUTH_TOKEN: SecretStr | None = Field(
        default=None, description="JWT: sent as password; the user is the last part of its sub claim"
    )
    DIMSE_NATS_SUBJECT_ROOT: str = Field(default="DIMSE", description="first token of all subjects")

    def relay_nats(self, name: str, **more: Any) -> NatsSettings:
        """The connection's settings; ``name`` shows in the server's monitoring. Raises ``SettingsError``."""
        if not self.DIMSE_NATS_URL:
            raise SettingsError("DIMSE_NATS_URL is not set: the relay needs a NATS server with JetStream")
        return connection_settings(self, "DIMSE_NATS_", name, **more)


class BridgeConnection(BaseModel):
    """The NATS server that event bridges share: mix into ``Settings``."""

    NATS_URL: str | None = Field(
        default=None, description="NATS server with JetStream that the hub and all edges share"
    )
    NATS_TLS_ENABLED: bool = Field(default=False, description="TLS towards it; certificates are verified")
    NATS_TLS_CA_FILE: Path | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the system's"
    )
    NATS_TLS_CERT_FILE: Path | None = Field(default=None, description="PEM client certificate")
    NATS_TLS_KEY_FILE: Path | None = Field(default=None, description="PEM key of the client certificate")
    NATS_AUTH_TOKEN: SecretStr | None = Field(
        default=None, description="JWT: sent as password; the user is the last part of its sub claim"
    )
    NATS_SUBJECT_ROOT: str = Field(default="events", description="first part of all subjects; the stream's name")
    NATS_DOMAIN: str | None = Field(
        default=None, description="JetStream domain that keeps the mailboxes; default that of the server"
    )

    def bridge_nats(self, name: str) -> NatsSettings:
        """The connection's settings; ``name`` shows in the server's monitoring. Raises ``SettingsError``."""
        if not self.NATS_URL:
            raise SettingsError("NATS_URL is not set: hub and edges share a NATS server with JetStream")
        return connection_settings(self, "NATS_", name)


class EventSettings(BaseModel):
    """Where an app hands in events: mix into its ``Settings``. NATS wins over ``K_SINK`` when both are set."""

    K_SINK: str | None = Field(
        default=None, description="URL that takes CloudEvents by POST; used when EVENTS_NATS_URL is not set"
    )
    EVENTS_NATS_URL: str | None = Field(
        default=None, description="NATS server of the event log, or several separated by commas"
    )
    EVENTS_NATS_TLS_ENABLED: bool = Field(default=False, description="TLS towards it; certificates are verified")
    EVENTS_NATS_TLS_CA_FILE: Path | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the system's"
    )
    EVENTS_NATS_TLS_CERT_FILE: Path | None = Field(default=None, description="PEM client certificate")
    EVENTS_NATS_TLS_KEY_FILE: Path | None = Field(default=None, description="PEM key of the client certificate")
    EVENTS_NATS_AUTH_TOKEN: SecretStr | None = Field(
        default=None, description="JWT: sent as password; the user is the last part of its sub claim"
    )
    EVENTS_NATS_SUBJECT_ROOT: str = Field(default="imaging", description="first part of all subjects")
    EVENTS_STREAM: str = Field(default="imaging", min_length=1, description="name of the event-driven ingestion")
    EVENTS_SEND_TIMEOUT_SECONDS: float = Field(
        default=30, gt=0, description="how long handing in an event is tried before it fails, seconds"
    )

    def event_subjects(self) -> EventSubjects:
        """Names of the log's streams and subjects."""
        return EventSubjects(self.EVENTS_NATS_SUBJECT_ROOT, self.EVENTS_STREAM)

    def event_nats(self, name: str) -> NatsSettings:
        """The connection's settings; ``name`` shows in the server's monitoring. Raises ``SettingsError``."""
        if not self.EVENTS_NATS_URL:
            raise SettingsError("EVENTS_NATS_URL is not set: the event log needs a NATS server with JetStream")
        return connection_settings(self, "EVENTS_NATS_", name)


class EventLogSettings(EventSettings):
    """What an app needs that appends to or consumes the event log: mix into its ``Settings``."""

    EVENTS_RETENTION_DAYS: float = Field(
        default=30, gt=0, description="events are kept this long, days; an existing stream is only ever widened"
    )
    EVENTS_DEAD_LETTER_RETENTION_DAYS: float = Field(default=90, gt=0, description="dead letters are kept, days")
    EVENTS_MAX_BYTES: int = Field(
        default=0, ge=0, description="size limit of the log, bytes; the oldest events go first; 0 is no limit"
    )
    EVENTS_DUPLICATE_WINDOW_SECONDS: float = Field(
        default=600, gt=0, description="an event appended twice within this time is kept once, seconds"
    )
    EVENTS_NATS_DOMAIN: str | None = Field(
        default=None, description="JetStream domain that keeps the log; default that of the server"
    )
    EVENTS_REPLICAS: int = Field(default=1, ge=1, le=5, description="copies of each stream in a NATS cluster")
    EVENTS_COMPRESSION: bool = Field(
        default=True,
        description="the server compresses the log on its disk (S2), what is new in an existing log too; false leaves "
        "it as it is",
    )
    EVENTS_RETRY_DELAYS_SECONDS: str = Field(
        default=",".join(f"{delay:g}" for delay in RETRY_DELAYS),
        description="waits between tries of a delivery, seconds, separated by commas; the last one repeats",
    )
    EVENTS_MAX_TRIES: int = Field(default=16, ge=1, description="tries before an event becomes a dead letter")
    EVENTS_ACK_WAIT_SECONDS: float = Field(
        default=30, ge=1, description="a consumer silent for this long has died: its events are delivered again"
    )
    EVENTS_DELIVER_FROM: Literal["all", "new"] = Field(
        default="all", description="a new consumer begins with what the log still holds (all) or with what comes (new)"
    )

    def event_policy(self) -> EventPolicy:
        """Limits of the streams and of delivery. Raises ``SettingsError``."""
        return EventPolicy(
            retention=timedelta(days=self.EVENTS_RETENTION_DAYS),
            dead_letter_retention=timedelta(days=self.EVENTS_DEAD_LETTER_RETENTION_DAYS),
            max_bytes=self.EVENTS_MAX_BYTES,
            duplicate_window=timedelta(seconds=self.EVENTS_DUPLICATE_WINDOW_SECONDS),
            replicas=self.EVENTS_REPLICAS,
            compressed=self.EVENTS_COMPRESSION,
            retry_delays=parse_delays(self.EVENTS_RETRY_DELAYS_SECONDS),
            max_tries=self.EVENTS_MAX_TRIES,
            ack_wait=timedelta(seconds=self.EVENTS_ACK_WAIT_SECONDS),
            deliver_from=self.EVENTS_DELIVER_FROM,
            domain=self.EVENTS_NATS_DOMAIN or None,
        )
