"""Connection settings of NATS, shared by the relay, the event log and the event bridge."""

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr


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
