"""``DicomEventDrivenIngestion``: the manifest database, the event broker and the event processor."""

from typing import Annotated

from pydantic import Field

from imaging_operator.specs.common import KnativeField, ServiceGroup, Spec
from imaging_operator.specs.connections import DatabaseTls, JetStreamDomainField, Nats, StreamFields, SubjectRoot
from imaging_operator.specs.model import ObjectName
from imaging_operator.specs.status import Status

LONGEST_QUIET_SECONDS = 365 * 86_400
"""The event processor takes no longer quiet time, seconds."""


class EventDrivenIngestionSpec(KnativeField, Nats, JetStreamDomainField, StreamFields, Spec):
    """Manifest, events and study revisions of an installation."""

    database_config_name: ObjectName = Field(
        default="",
        description="ConfigMap with the database's address (DB_HOST, DB_PORT, DB_NAME); needed",
    )
    database_secret_name: ObjectName = Field(
        default="", description="Secret with the database's credentials (DB_USER, DB_PASS); needed"
    )
    database_tls: DatabaseTls | None = Field(
        default=None, description="TLS to the database; absent: encrypted when the server offers it, not verified"
    )
    event_processor: ServiceGroup = Field(default=ServiceGroup(), description="the event processor")
    revisioning_delay: int | None = Field(
        default=None,
        description="quiet time after the last instance of a study before its revision is announced, seconds; "
        "absent, 0 or less: 30",
    )
    nats_subject_root: SubjectRoot = Field(
        default="", description="first part of all subjects of events; empty: as the operator is set, or imaging"
    )
    event_stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]*$", max_length=128)] = Field(
        default="",
        description="name of the event log in JetStream; empty: made of namespace and name. Another name begins "
        "another log",
    )
    event_retention_days: int | None = Field(
        default=None, ge=1, le=36_500, description="how long events are kept, days; absent: 30; is only ever widened"
    )

    @property
    def quiet_seconds(self) -> int | None:
        """The quiet time to set; None leaves it to the event processor."""
        delay = self.revisioning_delay or 0
        return min(delay, LONGEST_QUIET_SECONDS) if delay > 0 else None


class EventDrivenIngestionStatus(Status):
    """Status of a DicomEventDrivenIngestion."""

    broker_endpoint: str | None = Field(
        default=None, description="URL to which CloudEvents for this resource are posted"
    )
    event_processor_endpoint: str | None = Field(default=None, description="base URL of the event processor")
    event_stream: str | None = Field(default=None, description="name of the event log in JetStream")
