"""Settings of the event processor."""

import re
from datetime import timedelta

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from imaging_services.adapters.nats.settings import EventLogSettings
from imaging_services.adapters.postgres.settings import DatabaseVariables, PostgresSettings
from imaging_services.domain.errors import SettingsError
from imaging_services.runtime import ServiceSettings

DEFAULT_QUIET = timedelta(seconds=30)

_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?\s*", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> timedelta:
    """Read ``5s``, ``500ms``, ``1m``, ``PT5S``'s ``5S``, or plain seconds. Raises ``ValueError``."""
    match = _DURATION.fullmatch(text.strip().upper().removeprefix("PT"))
    if not match or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not a duration above zero such as 5s, 500ms or 1m")
    return timedelta(seconds=float(match[1]) * _UNITS[(match[2] or "s").lower()])


class Settings(DatabaseVariables, EventLogSettings, ServiceSettings):
    """The event processor: it records instances, announces them and their studies, and answers queries.

    With ``EVENTS_NATS_URL`` events go to the JetStream log, and producers hand theirs in over NATS or HTTP. Without
    it, ``DicomAvailableEvent`` and ``StudyRevisionEvent`` are posted to ``K_SINK``.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True)

    HTTP_HOST: str = Field(default="127.0.0.1", description="address of the CloudEvents ingress and the query API")
    HTTP_PORT: int = Field(default=8080, ge=1, le=65535, description="their port")
    HTTP_CONCURRENCY: int = Field(
        default=0, ge=0, description="requests under way there at once, others get 503; 0 is no limit"
    )
    EVENT_SOURCE: str = Field(
        default="event-driven-ingestion", min_length=1, description="CloudEvents source of the events made here"
    )
    STUDY_AGGREGATION_SCHEDULE: timedelta = Field(
        default=timedelta(seconds=5), description="how often quiet studies are looked for: 5s, 500ms, 1m"
    )
    IMAGING_INGESTION_STUDY_AGGREGATION_TIMEOUTSECONDS: float = Field(
        default=30,
        le=86_400 * 365,
        description="quiet time after a study's last instance before its revision, seconds; 0 or less means 30",
    )
    HTTP_IO_THREADS: int = Field(
        default=20, description="accepted for compatibility, without effect: requests are served by one event loop"
    )
    EVENT_LOOPS_POOL_SIZE: int = Field(
        default=20, description="accepted for compatibility, without effect: there is one event loop"
    )
    RECORD_BATCH_SIZE: int = Field(default=500, ge=1, le=5000, description="most events recorded in one transaction")
    RECORD_QUEUE_SIZE: int = Field(
        default=5000, ge=1, description="most events waiting to be recorded; producers wait beyond that"
    )
    RECORD_QUEUE_BYTES: int = Field(
        default=128 * 1024 * 1024, ge=1, description="most bytes of events waiting to be recorded"
    )

    @field_validator("STUDY_AGGREGATION_SCHEDULE", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        return parse_duration(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> "Settings":
        if self.postgres() is None:
            raise ValueError("DB_HOST, DB_NAME, DB_USER and DB_PASS have to be set: the manifest needs PostgreSQL")
        if not self.EVENTS_NATS_URL and not self.K_SINK:
            raise ValueError("nowhere to announce: set EVENTS_NATS_URL (JetStream) or K_SINK (a CloudEvents broker)")
        return self

    @property
    def database(self) -> PostgresSettings:
        """The manifest's database. Raises ``SettingsError`` when it is not set."""
        database = self.postgres("imaging-event-driven-ingestion")
        if database is None:
            raise SettingsError("DB_HOST is not set")
        return database

    @property
    def quiet(self) -> timedelta:
        """How long a study has to be quiet."""
        seconds = self.IMAGING_INGESTION_STUDY_AGGREGATION_TIMEOUTSECONDS
        return timedelta(seconds=seconds) if seconds > 0 else DEFAULT_QUIET
